"""The gfp table of a kernel from its print fmt, and the migratetypes from /proc/pagetypeinfo."""

from __future__ import annotations

import pytest

from tracereplay.kernel.rwbs import operation
from tracereplay.trace.printfmt import constant, gfp_names, migratetype_names

# Pieces of real format files.
NEW = (
    'print fmt: "page=%p gfp_flags=%s", REC->pfn, (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|", '
    "{( unsigned long)((((( gfp_t)(((((1UL))) << (10))|((((1UL))) << (11)))) | (( gfp_t)((((1UL))) << (6))))"
    ' & ~(( gfp_t)(((((1UL))) << (10))|((((1UL))) << (11))))) | (( gfp_t)((((1UL))) << (10)))), "GFP_ODD"}, '
    '{( unsigned long)(( gfp_t)((((1UL))) << (24))), "__GFP_NO_OBJ_EXT"}, { 0, ((void *)0) } ) : "none"'
)
OLD = (
    'print fmt: "gfp_flags=%s", __print_flags(REC->gfp_flags, "|", '
    '{(unsigned long)(((( gfp_t)(0x400u|0x800u)) | (( gfp_t)0x40u)) | (( gfp_t)0x80u)), "GFP_KERNEL"}, '
    '{(unsigned long)(( gfp_t)0x100u), "__GFP_ZERO"}, {(unsigned long)(gfp_t)___GFP_NEW_BIT, "__GFP_NEW"})'
)


def test_new_kernels_write_shifts() -> None:
    assert gfp_names(NEW) == {"GFP_ODD": 0x440, "__GFP_NO_OBJ_EXT": 0x1000000}


def test_old_kernels_write_hex_and_unknown_names_are_left_out() -> None:
    assert gfp_names(OLD) == {"GFP_KERNEL": 0xCC0, "__GFP_ZERO": 0x100}


def test_a_text_without_flags_gives_nothing() -> None:
    assert gfp_names('print fmt: "pfn=0x%lx", REC->pfn') == {}
    assert gfp_names("") == {}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0x10UL", 16),
        ("1UL << 3 | 2", 10),
        ("6 & ~2", 4),
        ("(unsigned int)((21 - 12))", 9),
        ("1 + 2 << 3", 24),
        ("-1 & 0xff", 255),
    ],
)
def test_constant_expressions(text: str, value: int) -> None:
    assert constant(text) == value


@pytest.mark.parametrize("text", ["", "1 +", "(1", "1)", "FOO", "1 ? 2 : 3", "__import__('os')", "2 ** 9"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        constant(text)


def test_migratetypes_come_in_number_order() -> None:
    text = (
        "Page block order: 9\n\nNumber of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      CMA\n"
    )
    assert migratetype_names(text) == ["Unmovable", "Movable", "Reclaimable", "HighAtomic", "CMA"]
    assert migratetype_names("nonsense") == []


@pytest.mark.parametrize(
    ("rwbs", "op"),
    [
        ("R", "R"),
        ("WS", "W"),
        ("FWFSM", "W"),
        ("FF", "F"),
        ("F", "F"),
        ("FS", "F"),
        ("D", "D"),
        ("DE", "DE"),
        ("N", "N"),
        ("RA", "R"),
        ("ZA", "ZA"),
        ("ZRA", "ZRA"),
        ("", ""),
    ],
)
def test_operation_of_rwbs(rwbs: str, op: str) -> None:
    assert operation(rwbs) == op
