"""The bulk allocator's probe on this kernel. Where it has no kprobes, its programs watch a function of libc instead:
same registers, same pairing, same records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from collectors.bulkprobe import available
from tracereplay.trace.reader import Trace

pytestmark = pytest.mark.live

REPOSITORY = Path(__file__).parents[2]

# Runs on the system Python, which has bcc. libc's syscall(number, a1 .. a6): the number stands for gfp, a3 for
# nr_pages, a5 for the array. umask gives back what it was given before: the number of pages "returned".
_UPROBES = r"""
import ctypes, json, os, sys
sys.path.insert(0, sys.argv[1])
from collectors import programs
from collectors.bulkprobe import BulkProbe
from collectors.cbulk import KPROBE, Target
from collectors.kernel import LoadedProbes, import_bcc
from collectors.rings import RingReader

libc = ctypes.CDLL(None)
UMASK = int(sys.argv[2])
bcc = import_bcc()
source = BulkProbe.source
BulkProbe.source = lambda self, kind, conditions=(): source(self, kind, conditions).replace(
    "bpf_probe_read_kernel", "bpf_probe_read_user")
path = next(line.split()[-1] for line in open("/proc/self/maps") if "libc.so.6" in line)

def attach(self, bpf):
    self._bpf = bpf
    bpf.attach_uretprobe(name=path.encode(), sym=b"syscall", fn_name=b"tr_bulk", pid=os.getpid())
    bpf.attach_uprobe(name=path.encode(), sym=b"syscall", fn_name=b"tr_bulk_entry", pid=os.getpid())
    return bpf.funcs[b"tr_bulk"].fd
BulkProbe.attach = attach

probe = BulkProbe(KPROBE, Target("syscall", array=5))
plan = programs.Plan(programs.lanes_of([], raw=False, bulk=probe), {}, bulk=probe)
loaded = LoadedProbes(plan, 1.0, None)
loaded.add_online_cpus()
loaded.attach()
before = probe.counts()
loaded.set_gate(True)

def call(wanted, filled, returned):
    array = (ctypes.c_uint64 * max(1, wanted))(*[0xFFFF888000000000 if i in filled else 0 for i in range(wanted)])
    os.umask(returned)
    libc.syscall(UMASK, 0o22, 0, wanted, 0, ctypes.byref(array), 0)

call(100, (), 100)
call(256, range(100), 0o400)
call(16, (0, 3, 15), 16)
call(600, range(600), 0o777)
call(0, (), 0)
loaded.set_gate(False)
rows = []
bulk = [r.name for r in plan.rings].index("bulk")
for (ring, cpu), reader in loaded.rings.items():
    if ring == bulk:
        data, _busy = reader.peek()
        layout = plan.ring("bulk").offsets()
        for at in range(0, len(data or b""), reader.stride):
            def word(name, size=4):
                start = at + 8 + layout[name]
                return int.from_bytes(bytes(data[start:start + size]), sys.byteorder)
            rows.append((word("ts", 8), word("gfp"), word("requested"), word("returned"), word("pid"),
                         word("flags", 1), word("caller", 8)))
        del data
rows.sort()
missed = probe.missed(before)
inside = [tuple(int(x, 16) for x in line.split()[0].split("-")) for line in open("/proc/self/maps") if "r-xp" in line]
print(json.dumps({"pid": os.getpid(), "rows": rows, "missed": missed,
                  "callers": all(any(a <= row[6] < b for a, b in inside) for row in rows)}))
"""
_UMASK = {"x86_64": 95, "aarch64": 166}


def test_calls_are_paired_and_counted(tmp_path: Path) -> None:
    script = tmp_path / "uprobes.py"
    script.write_text(_UPROBES)
    number = _UMASK[os.uname().machine]
    done = subprocess.run(
        ["/usr/bin/python3", str(script), str(REPOSITORY), str(number)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    rows = [row for row in told["rows"] if row[1] == number]
    assert [(row[2], row[3]) for row in rows] == [
        (100, 100),  # all new
        (156, 156),  # 100 entries were there before
        (13, 13),  # holes
        (88, 0),  # only the first 512 entries are looked at: 600 - 512, and 511 - 512
        (0, 0),
    ]
    assert {row[4] for row in rows} == {told["pid"]}
    assert {row[5] for row in rows} == {0}
    assert told["callers"]
    assert told["missed"] == 0


_SPLICE = """
import fcntl, os
r, w = os.pipe()
fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 1 << 20)
zero, null = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
for _ in range(40):
    left = os.splice(zero, w, 256 * 4096)
    while left:
        left -= os.splice(r, null, left)
"""


def test_the_group_bulk_records_or_says_why_not(tmp_path: Path) -> None:
    """Splice from /dev/zero takes 40 x 256 pages from the bulk allocator (6.5 and later)."""
    out = tmp_path / "t"
    command = [str(Path(sys.executable).parent / "tracereplay"), "capture", str(out), "--events", "page,bulk"]
    done = subprocess.run([*command, "--", "/usr/bin/python3", "-c", _SPLICE], capture_output=True, text=True)
    tap, reason = available()
    if not tap:
        assert done.returncode != 0
        assert reason in " ".join(done.stderr.split())
        assert not out.exists()
        return
    assert done.returncode == 0, done.stderr
    bulk = Trace.open(out).page_events.filter(pl.col("kind") == "bulk").collect()
    calls = bulk.filter((pl.col("requested") == 256) & (pl.col("returned") == 256))
    assert len(calls) >= 40
    assert calls["gfp"].null_count() == 0
