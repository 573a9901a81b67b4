# SPDX-License-Identifier: GPL-2.0-only
"""Failures of the collector, by the name that the reader turns into its own error of the same name."""

from __future__ import annotations


class CollectorError(Exception):
    """Base: the class name goes into the ERROR frame; ``hint`` is the next step."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PrivilegeError(CollectorError):
    """Not enough rights."""


class BccUnavailableError(CollectorError):
    """No usable bcc module in this Python."""


class ProbeUnavailableError(CollectorError):
    """No tracepoint of a wanted group can be used."""


class ReaderGoneError(Exception):
    """Nobody reads the output any more (closed pipe, dead process)."""
