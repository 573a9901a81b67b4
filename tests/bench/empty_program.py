"""Attach a raw program that does nothing to page allocations and frees, until standard input ends.

Run on the system Python with the directory that holds ``collectors``: prints, as JSON, event -> [ns, runs] by the
kernel's run-time statistics, which have to be on. That is what measuring costs.
"""

from __future__ import annotations

import json
import sys

sys.path.insert(0, sys.argv[1])

from collectors import bpfsys
from collectors.kernel import compile_programs, import_bcc

EVENTS = ("alloc", "free")


def main() -> None:
    """Attach, wait, tell."""
    functions = "\n".join(f"int empty_{e}(struct bpf_raw_tracepoint_args *ctx) {{ return 0; }}" for e in EVENTS)
    programs = compile_programs(functions)
    kind = import_bcc().BPF.RAW_TRACEPOINT
    loaded = {event: programs.load_func(f"empty_{event}".encode(), kind) for event in EVENTS}
    for event, function in loaded.items():
        programs.attach_raw_tracepoint(tp=f"mm_page_{event}".encode(), fn_name=function.name)
    print("ready", flush=True)
    sys.stdin.read()
    told = {event: bpfsys.program_info(function.fd) for event, function in loaded.items()}
    print(json.dumps({event: [info["run_time_ns"], info["run_cnt"]] for event, info in told.items()}))


if __name__ == "__main__":
    main()
