"""Block-trace tables: the compiled reader and the obvious one agree on anything, line by line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.block_samples import TABLES, Request, line, read, text, vscsi
from tests.reference.slow_block_traces import rows as slow_rows
from tracereplay.errors import ImportFormatError

requests = st.builds(
    Request,
    step=st.integers(0, 5000),
    volume=st.integers(0, 5),
    sector=st.integers(0, 2**40),
    sectors=st.integers(0, 5000),
    write=st.booleans(),
    latency=st.one_of(st.integers(0, 5000), st.just(2**62)),
)
odd = st.sampled_from(
    ["", "#x", '"', ",", ",,", " ", "x", "9" * 19, "9" * 20, "-1", "1.5", ".5", "ff", "\r", "1,2", "\t"]
)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, bytes]:
    """A format, and a file of it some of whose lines had a piece put in or a field replaced."""
    name = draw(st.sampled_from(sorted(TABLES)))
    lines = [line(name, r) for r in draw(st.lists(requests, min_size=1, max_size=30))]
    separator = TABLES[name].separator
    for at in draw(st.lists(st.integers(0, len(lines) - 1), max_size=8)):
        if draw(st.booleans()):
            fields = lines[at].split(separator)
            fields[draw(st.integers(0, len(fields) - 1))] = draw(odd)
            lines[at] = separator.join(fields)
        else:
            place = draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:place] + draw(odd) + lines[at][place:]
    head = [TABLES[name].header] if draw(st.booleans()) else []
    return name, (
        draw(st.sampled_from(["\n", "\r\n"])).join([*head, *lines]) + draw(st.sampled_from(["\n", ""]))
    ).encode()


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files(), st.sampled_from([1 << 12, 8 << 20]))
def test_as_the_obvious_reader(tmp_path: Path, file: tuple[str, bytes], block_bytes: int) -> None:
    name, content = file
    expected, refused = slow_rows(TABLES[name], content)
    path = tmp_path / "x"
    path.write_bytes(content)
    if not expected:
        with pytest.raises(ImportFormatError, match="is a request of"):
            read(path, name)
        return
    got = read(path, name, block_bytes=block_bytes)
    other = sum(got.conversion.summary.other_events.values())
    assert got.rejected + other == len(refused)
    assert sorted(got.rows) == sorted(expected)
    assert [row[0] for row in got.rows] == [row[0] for row in expected]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(requests, min_size=1, max_size=50), st.integers(0, 39))
def test_vscsi_tells_what_the_csv_tells(tmp_path: Path, made: list[Request], cut: int) -> None:
    made = [Request(r.step * 10**6, 0, r.sector, r.sectors, r.write, r.latency % 1000) for r in made]
    seconds = [Request(r.step // 10**6, 0, r.sector, r.sectors, r.write) for r in made]
    (tmp_path / "csv").write_bytes(text("libcachesim-csv", seconds))
    csv = [row[:2] + row[3:] for row in read(tmp_path / "csv", "libcachesim-csv").rows]
    for version, tail in ((1, cut % 32), (2, cut)):
        (tmp_path / "bin").write_bytes(vscsi(version, made) + bytes(tail))
        got = read(tmp_path / "bin", "vscsi", block_bytes=400)
        assert [row[:2] + row[3:] for row in got.rows if row[1] == "queue"] == csv
        assert got.rejected == (tail > 0)
        done = sorted(row[0] for row in got.rows if row[1] == "bio_complete")
        assert done == ([] if version == 1 else sorted((r.step + r.latency) * 1000 for r in made))


ACTIONS = {"read": "R", "write": "W", "trim": "D", "sync": "F", "datasync": "F"}
iolog_lines = st.lists(
    st.tuples(
        st.sampled_from([*ACTIONS, "wait", "add", "open", "close", "jump"]),
        st.sampled_from(["/dev/sda", "f.dat"]),
        st.integers(0, 2**34),
        st.integers(1, 2**20),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(iolog_lines, st.sampled_from([2, 3]))
def test_iologs_as_the_obvious_reader(tmp_path: Path, lines: list[tuple[str, str, int, int]], version: int) -> None:
    content, expected, refused, clock = [f"fio version {version} iolog"], [], 0, 0
    for number, (action, file, offset, length) in enumerate(lines):
        stamp = f"{number * 10} " if version == 3 else ""
        places = "" if action in ("add", "open", "close") else f" {offset} {length}"
        content.append(f"{stamp}{file} {action}{places}")
        if action == "wait" and version == 2:
            clock += offset
        elif action in ("jump", "wait"):
            refused += 1
        elif action in ACTIONS:
            ts = 1000 * (clock if version == 2 else number * 10)
            flush = action.endswith("sync")
            first, end = (0, 0) if flush else (offset // 512, -(-(offset + length) // 512))
            expected.append((ts, "queue", file, first, end - first, ACTIONS[action]))
    path = tmp_path / "x"
    path.write_text("\n".join(content) + "\n")
    if not expected:
        with pytest.raises(ImportFormatError):
            read(path, "fio")
        return
    got = read(path, "fio", block_bytes=512)
    assert got.rows == expected
    assert got.rejected == refused
