# SPDX-License-Identifier: GPL-2.0-only
"""Which way a capture goes: eBPF where the host allows it, else a private instance of tracefs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys

from collectors import bpfsys
from collectors.attendance import StopRequest
from collectors.errors import CollectorError, ProbeUnavailableError
from collectors.options import Options
from collectors.output import Output
from collectors.resolve import FilterError
from collectors.tracefs_filters import UnsupportedOptionError

EBPF, TRACEFS = "ebpf", "tracefs"


def ebpf_refused() -> str:
    """Why eBPF cannot be used here, found without loading a compiler; empty: nothing is known against it."""
    with contextlib.suppress(ValueError, ImportError):
        if importlib.util.find_spec("bcc") is None:
            return f"{sys.executable} has no module bcc"
    try:
        os.close(bpfsys.create_ring_map())
    except OSError as error:
        return f"the kernel refuses bpf(): {error.strerror or error}"
    return ""


def run_chosen(options: Options, output: Output, stop: StopRequest) -> None:
    """Capture the way that ``options.tracer`` names; ``auto`` takes tracefs where eBPF is refused, at once or when it
    starts. Raises CollectorError, with both reasons where both ways fail, or ReaderGoneError.
    """
    from collectors.session import Session

    refused = ebpf_refused() if options.tracer == "auto" else ""
    if options.tracer == EBPF or (options.tracer == "auto" and not refused):
        try:
            Session(options, output, stop).run()
            return
        except FilterError:
            raise
        except CollectorError as error:
            if options.tracer == EBPF or output.bytes_sent:
                raise
            refused = error.message
            first: CollectorError | None = error
    else:
        first = None
    _run_tracefs(options, output, stop, refused, first)


def _run_tracefs(
    options: Options, output: Output, stop: StopRequest, refused: str, first: CollectorError | None
) -> None:
    from collectors.tracefs_session import run_tracefs

    if options.tracer == TRACEFS:
        run_tracefs(options, output, stop)
        return
    sys.stderr.write(f"collector: eBPF cannot be used, capturing through tracefs: {refused}\n")
    try:
        run_tracefs(options, output, stop, f"eBPF cannot be used: {refused}")
    except UnsupportedOptionError as error:
        if isinstance(first, ProbeUnavailableError):  # eBPF works here, but for what was asked
            raise first from None
        raise type(error)(f"{error.message}: {refused}", error.hint) from None
    except FilterError:
        raise
    except CollectorError as error:
        if output.bytes_sent:
            raise
        kind, hint = (type(first), first.hint) if first else (type(error), error.hint)
        raise kind(f"{refused}; and tracefs cannot be used: {error.message}", hint or error.hint) from None
