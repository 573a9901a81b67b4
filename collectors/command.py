# SPDX-License-Identifier: GPL-2.0-only
"""Command line of the collector. Frames go to standard output (or --raw FILE), words to standard error."""

from __future__ import annotations

import argparse
import os
import sys

from collectors.tracepoints import GROUPS


def _groups(text: str) -> list[str]:
    groups = [g.strip() for g in text.split(",") if g.strip()]
    unknown = [g for g in groups if g not in GROUPS]
    if unknown or not groups:
        raise argparse.ArgumentTypeError(f"unknown group {', '.join(unknown) or text!r}; groups: {', '.join(GROUPS)}")
    return groups


def parser() -> argparse.ArgumentParser:
    """The options."""
    made = argparse.ArgumentParser(
        prog="collectors", description="Record page-allocation and block events as raw frames."
    )
    made.add_argument(
        "--events", type=_groups, default=["page", "bio"], help="groups: page,bio,buddy (default page,bio)"
    )
    made.add_argument("--duration", type=float, metavar="SECONDS", help="stop after so long")
    made.add_argument("--ring-mib", type=float, default=16.0, help="page ring per CPU in MiB; bio rings get a quarter")
    made.add_argument("--drain-ms", type=float, default=10.0, help="interval between drains")
    made.add_argument("--raw", metavar="FILE", help="write frames to FILE (must not exist) instead of standard output")
    made.add_argument("--no-raw-tap", action="store_true", help="page events through perf tracepoints only")
    made.add_argument("--attended", action="store_true", help="stop when stdin ends and when the parent dies")
    made.add_argument("--check", action="store_true", help="try what a capture needs, print the findings as JSON, end")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run; the exit code (0 ok, 2 usage, 4 failure, 141 reader gone)."""
    args = parser().parse_args(argv)
    if args.check:
        from collectors.check import print_findings

        return print_findings(args.events)
    from collectors.session import Options, run_session

    options = Options(args.events, args.duration, args.ring_mib, args.drain_ms, args.attended, not args.no_raw_tap)
    if args.raw:
        try:
            fd = os.open(args.raw, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            sys.stderr.write(f"collector: output exists: {args.raw}\n")
            return 2
        code = run_session(options, fd)
        os.fsync(fd)
        os.close(fd)
        return code
    if os.isatty(1):
        sys.stderr.write("collector: frames are binary and stdout is a terminal; redirect it or use --raw FILE\n")
        return 2
    # Frames own file descriptor 1: whatever else prints (LLVM, a stray print) goes to standard error.
    frames = os.dup(1)
    os.set_inheritable(frames, False)
    os.dup2(2, 1)
    return run_session(options, frames)
