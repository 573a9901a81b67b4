"""/proc texts that were cut, joined or scribbled on give rows or the named error, nothing else."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, seed, settings
from hypothesis import strategies as st

from tracereplay.errors import ImportFormatError
from tracereplay.kernel.procfs import PROC_PARSERS
from tracereplay.trace.snapshots import snapshot_batch

DATA = Path(__file__).parents[1] / "data" / "procfs"
TEXTS = {
    (kernel, name): (DATA / kernel / name).read_text() for kernel in ("6.1", "6.12", "6.18") for name in PROC_PARSERS
}


@seed(20261121)
@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(TEXTS)),
    st.sampled_from(sorted(PROC_PARSERS)),
    st.lists(st.tuples(st.integers(0, 12_000), st.integers(0, 60), st.text(max_size=8)), max_size=6),
)
def test_mangled_texts(which: tuple[str, str], parser: str, edits: list[tuple[int, int, str]]) -> None:
    text = TEXTS[which]
    for start, length, insert in edits:
        text = text[:start] + insert + text[start + length :]
    try:
        rows = PROC_PARSERS[parser](text)
    except ImportFormatError:
        return
    batch = snapshot_batch(rows, None, "tick")
    assert batch.num_rows == len(rows)
    assert batch.to_pylist() == [{"ts_ns": None, "phase": "tick", **row} for row in rows]
