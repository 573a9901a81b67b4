"""Names of kernel addresses, on symbol tables written for the purpose and on the kernel's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from collectors import symbols
from collectors.symbols import SymbolTable

TABLE = """\
0000000000001000 T _stext
0000000000001000 T _text
0000000000001000 t first
0000000000001100 T __pfx_second
0000000000001110 t alias_of_second
0000000000001110 W weak_second
0000000000001110 T second
0000000000001110 T __pi_second
0000000000001180 d data
0000000000001200 t panics
0000000000001300 T _etext
0000000000001400 D jiffies
0000000000002000 T _sinittext
0000000000002000 t setup
0000000000002100 T _einittext
ffffffffc0001000 t crypt_convert\t[dm_crypt]
ffffffffc0000100 t bpf_prog_1_tr_alloc\t[bpf]
"""


@pytest.fixture
def table(tmp_path: Path) -> SymbolTable:
    path = tmp_path / "kallsyms"
    path.write_text(TABLE)
    return SymbolTable(path)


def names(table: SymbolTable, *addresses: int) -> list[list[object] | None]:
    found = table.resolve(set(addresses))
    assert found["note"] == ""
    return [found["symbols"].get(str(address)) for address in addresses]


def test_an_address_gets_function_offset_and_module(table: SymbolTable) -> None:
    assert names(table, 0x1008, 0xFFFFFFFFC0001044, 0xFFFFFFFFC0000120) == [
        ["first", 8, ""],
        ["crypt_convert", 0x44, "dm_crypt"],
        ["bpf_prog_1_tr_alloc", 0x20, "bpf"],
    ]


def test_of_several_names_the_global_function_is_taken(table: SymbolTable) -> None:
    assert names(table, 0x1114) == [["second", 4, ""]]


def test_section_labels_give_way_to_functions(table: SymbolTable) -> None:
    assert names(table, 0x1001, 0x2010) == [["first", 1, ""], ["setup", 0x10, ""]]


def test_a_call_that_never_returns_belongs_to_its_caller(table: SymbolTable) -> None:
    """Its return address is the first byte after the function."""
    assert names(table, 0x1200) == [["second", 0xF0, ""]]
    assert names(table, 0x1300) == [["panics", 0x100, ""]]


def test_an_interrupted_first_instruction_is_not_in_the_padding_before_it(table: SymbolTable) -> None:
    assert names(table, 0x1110, 0x1104) == [["second", 0, ""], ["__pfx_second", 4, ""]]


def test_addresses_outside_text_stay_unresolved(table: SymbolTable) -> None:
    outside = [0x10, 0xFFF, 0x1000, 0x1301, 0x1408, 0x1FFF, 0x2101, 0xFFFFFFFFC0000000, 0xFFFFFFFFC0201000]
    assert names(table, *outside) == [None] * len(outside)


def test_addresses_that_are_hidden_give_a_note(tmp_path: Path) -> None:
    path = tmp_path / "kallsyms"
    path.write_text("0000000000000000 T _stext\n0000000000000000 t first\n")
    found = SymbolTable(path).resolve({0x1008})
    assert found["symbols"] == {}
    assert "kptr_restrict" in found["note"]


def test_a_missing_or_empty_table_gives_a_note(tmp_path: Path) -> None:
    assert "not read" in SymbolTable(tmp_path / "none").resolve({1})["note"]
    (tmp_path / "empty").write_text("")
    assert "names no function" in SymbolTable(tmp_path / "empty").resolve({1})["note"]


def test_too_many_symbols_are_said(table: SymbolTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbols, "MAX_SYMBOLS", 3)
    found = table.resolve({0x1008, 0xFFFFFFFFC0001044})
    assert found["symbols"] == {"4104": ["first", 8, ""]}
    assert "first 3 symbols" in found["note"]


def test_the_running_kernel_resolves_as_its_own_table_says() -> None:
    """Every function whose address is shown is found by an address inside it."""
    wanted: dict[int, set[str]] = {}
    for line in Path("/proc/kallsyms").read_text().splitlines():
        address, kind, name = line.split()[:3]
        if kind in "tTwW" and int(address, 16):
            wanted.setdefault(int(address, 16), set()).add(name)
    starts = sorted(wanted)[:-1:97]
    found = SymbolTable().resolve({start + 1 for start in starts})
    if not starts:
        assert "kptr_restrict" in found["note"]
    for start in starts:
        if wanted[start] & {"_etext", "_einittext"}:
            continue
        name, offset, _ = found["symbols"][str(start + 1)]
        assert name in wanted[start]
        assert offset == 1
