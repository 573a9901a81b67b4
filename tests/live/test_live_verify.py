"""The twin check on a capture of this host: parallel compiles, direct and buffered writes, process churn."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tracereplay.trace.capture import CaptureOptions, capture
from tracereplay.trace.reader import Trace
from tracereplay.verify.result import run_check

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]
SECONDS = 8


def mixed(tmp_path: Path) -> str:
    """A shell script of the load; Python compiles where there is no C compiler."""
    sources = Path(__file__).parent
    if shutil.which("gcc"):
        source = tmp_path / "many.c"
        body = "(int a, int b) { int s = 0; for (int k = 0; k < a; k++) s += k * b; return s; }"
        source.write_text("\n".join(f"int f{i}{body}" for i in range(400)))
        build = f"gcc -O2 -c {source} -o {tmp_path}/$1.o"
    else:
        build = f"{sys.executable} -c \"compile(open('{sources}/workloads.py').read() * 200, 'x', 'exec')\""
    return f"""
        end=$(( $(date +%s) + {SECONDS} ))
        building() {{ while [ $(date +%s) -lt $end ]; do {build}; done; }}
        building 1 & building 2 &
        while [ $(date +%s) -lt $end ]; do
            dd if=/dev/zero of={tmp_path}/direct bs=1M count=16 oflag=direct status=none
            dd if=/dev/zero of={tmp_path}/buffered bs=64k count=400 status=none
            rm {tmp_path}/buffered
            for i in 1 2 3 4 5 6 7 8 9 10; do /bin/true; done
            {sys.executable} {sources}/workloads.py touch 16000 > /dev/null
        done
        wait
    """


def test_the_twin_does_what_this_kernel_did(out: Path, tmp_path: Path) -> None:
    command = ("sh", "-c", mixed(tmp_path))
    options = CaptureOptions(groups=("page", "buddy", "reclaim", "bio"), command=command)
    summary = capture(out, options)
    assert summary.command_status == 0
    _, result = run_check(Trace.open(summary.path))
    found = result.to_json()
    assert found["pfn"]["eligible_share"] > 0.9
    assert found["pfn"]["exact"] + found["totals"]["initial_pops"] > 0.97 * found["pfn"]["eligible"]
    assert found["refill"]["kernel"] > 50
    assert found["refill"]["precision"] > 0.95
    assert found["refill"]["recall"] > 0.95
    assert found["free_blocks"]["l1_share"] is not None
