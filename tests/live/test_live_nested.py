"""The second program of allocations waits until an allocation was missed; then it takes only what is missed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tracereplay.trace.collector_process import collectors_directory

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("nothing_stays")]

# On the system Python: bcc is only there. A miss cannot be forced from outside; the counter's start can.
SCRIPT = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
from collectors import kernel, programs
from collectors.pagegeometry import EVENT, find_page_geometry
from collectors.tracepoints import chosen, find_formats
root, _ = kernel.ensure_tracefs()
formats, _ = find_formats(root, chosen(["page"]))
geometry, why = find_page_geometry(formats[EVENT])
assert geometry is not None, why
lanes = programs.lanes_of(chosen(["page"]), raw=True)
loaded = kernel.LoadedProbes(programs.Plan(lanes, formats), 16, geometry)
loaded.add_online_cpus()
loaded.attach()
names = [lane.function for lane in lanes]
alloc, nested = names.index("tr_mm_page_alloc"), names.index("tr_mm_page_alloc_nested")
def look():
    facts, counters = loaded.program_facts()["kmem:mm_page_alloc"], loaded.counters()["page"]
    sums = [sum(c.get(str(i), {}).get("seq", 0) for c in counters.values()) for i in (alloc, nested)]
    for ring in loaded.rings.values():
        data, _ = ring.peek()
        if data is not None:
            size = data.nbytes
            data.release()
            ring.advance(size)
    return {"attached": nested in loaded._program_fds, "missed": facts["recursion_misses"], "seq": sums}
def work():
    subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL)
loaded.set_gate(True)
told = []
work()
loaded.attach_waiting()
told.append(look())
loaded._misses[alloc] -= 1
loaded.attach_waiting()
told.append(look())
work()
loaded.set_gate(False)
told.append(look())
loaded.detach()
loaded.close()
print(json.dumps(told))
"""


def test_it_is_attached_when_an_allocation_was_missed_and_repeats_nothing() -> None:
    work = [sys.executable, str(Path(__file__).with_name("workloads.py")), "touch", "40000"]
    done = subprocess.run(
        ["/usr/bin/python3", "-B", "-c", SCRIPT, str(collectors_directory().parent), *work],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, at, after = json.loads(done.stdout)
    assert before["seq"][0] >= 40000
    assert at["attached"]
    assert after["attached"]
    if not before["attached"]:  # else this host really missed one by then
        assert before["seq"][1] == 0
    taken = after["seq"][1] - at["seq"][1]
    missed = after["missed"] - at["missed"]
    assert after["seq"][0] - at["seq"][0] >= 40000
    assert abs(taken - missed) <= 1
