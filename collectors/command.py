# SPDX-License-Identifier: GPL-2.0-only
"""Command line of the collector. Frames go to standard output (or --raw FILE), words to standard error."""

from __future__ import annotations

import os
import sys

from collectors.options import options_of, parser


def main(argv: list[str] | None = None) -> int:
    """Run; the exit code (0 ok, 2 usage, 4 failure, 141 reader gone)."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["calibrate"]:
        from collectors.calibrate import main as calibrate

        return calibrate(argv[1:])
    args = parser().parse_args(argv)
    if args.check:
        from collectors.check import print_findings

        return print_findings(args.events)
    from collectors.session import run_session

    options = options_of(args)
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
