"""Tables of analyses: units, headings, width."""

from __future__ import annotations

import polars as pl

from tracereplay.cli.analyze_table import table


def test_units_by_the_names_of_columns() -> None:
    frame = pl.DataFrame(
        {
            "caller": ["do_fault", None],
            "p50_ns": [1_500_000, 0],
            "bytes": [1536, 4 << 20],
            "bytes_per_s": [2048.0, None],
            "live_byte_seconds": [3 << 30, 1],
            "share": [0.125, 0.0001],
            "lba_bytes": [30_742_151_168, 0],
            "nothing": [None, None],
        }
    )
    assert table(frame).splitlines() == [
        "                                        live",
        "                                        byte",
        "caller        p50    bytes  bytes/s  seconds    share             lba",
        "--------  -------  -------  -------  -------  -------  --------------",
        "do_fault  1.50 ms  1.5 KiB  2 KiB/s  3 GiB s   12.5 %  30,742,151,168",
        "-               0    4 MiB        -    1 B s  < 0.1 %               0",
    ]


def test_long_texts_give_way_to_the_width() -> None:
    frame = pl.DataFrame({"caller": ["x" * 100], "stack": [["a" * 30, "b" * 30]], "pages": [1]})
    lines = table(frame, 80).splitlines()
    assert max(map(len, lines)) == 80
    assert lines[-1].count("..") == 2
    assert max(map(len, table(frame, 200).splitlines())) == 100 + 2 + 61 + 2 + 5


def test_headings_are_not_wider_than_their_values() -> None:
    frame = pl.DataFrame({"order": [0], "mixed_pageblocks_taken_over": [12]})
    assert table(frame).splitlines()[:4] == [
        "            mixed",
        "       pageblocks",
        "order  taken over",
        "-----  ----------",
    ]


def test_an_empty_frame_has_its_headings() -> None:
    assert table(pl.DataFrame({"pages": [], "caller": []})) == "pages  caller\n-----  ------"
