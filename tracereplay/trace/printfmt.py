"""What a tracepoint's ``print fmt`` says: the gfp names of the running kernel.

The kernel prints gfp masks by a table of (mask, name) pairs, longest composites first, whose masks are C
constant expressions (include/trace/events/mmflags.h). The expressions are evaluated here with a parser of
their few operators, so that a trace carries the numbering of its own kernel.
"""

from __future__ import annotations

import re

_PAIR = re.compile(r'\{\s*([^{}"]*?),\s*"([^"]+)"\s*\}')
_TOKEN = re.compile(r"\s*(0[xX][0-9a-fA-F]+|\d+|<<|>>|[|&~()+\-]|[A-Za-z_][A-Za-z_ ]*)")
_TYPES = re.compile(
    r"^(unsigned|long|int|gfp_t|u32|u64|__force|signed)( +(unsigned|long|int|gfp_t|u32|u64|__force|signed))*$"
)
_SUFFIX = re.compile(r"(?<=[0-9a-fA-F])(?:[uU][lL]{0,2}|[lL]{1,2}[uU]?)\b")
_LEVELS = (("|",), ("&",), ("<<", ">>"), ("+", "-"))


def gfp_names(format_text: str) -> dict[str, int]:
    """Name -> mask from the format file of ``kmem:mm_page_alloc``, in the kernel's order; empty if there is
    none.

    A pair whose expression holds something unknown (an enum name of an old kernel) is left out.
    """
    _, found, flags = format_text.partition("__print_flags")
    if not found:
        return {}
    names: dict[str, int] = {}
    for expression, name in _PAIR.findall(flags):
        try:
            value = constant(expression)
        except ValueError:
            continue
        names[name] = value & 0xFFFFFFFF
    return names


def constant(expression: str) -> int:
    """Value of a C integer constant expression: literals, casts, ``| & << >> + - ~`` and parentheses.

    Raises ValueError for anything else.
    """
    text = _SUFFIX.sub("", expression)
    tokens: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"cannot read {text[at : at + 20]!r}")
        tokens.append(match[1].strip())
        at = match.end()
    value, rest = _binary(tokens, 0, 0)
    if rest != len(tokens):
        raise ValueError(f"unexpected {tokens[rest]!r}")
    return value


def _binary(tokens: list[str], at: int, level: int) -> tuple[int, int]:
    if level == len(_LEVELS):
        return _unary(tokens, at)
    left, at = _binary(tokens, at, level + 1)
    while at < len(tokens) and tokens[at] in _LEVELS[level]:
        operator = tokens[at]
        right, at = _binary(tokens, at + 1, level + 1)
        if operator == "|":
            left |= right
        elif operator == "&":
            left &= right
        elif operator == "<<":
            left <<= min(right, 64)
        elif operator == ">>":
            left >>= right
        else:
            left = left + right if operator == "+" else left - right
    return left, at


def _unary(tokens: list[str], at: int) -> tuple[int, int]:
    if at >= len(tokens):
        raise ValueError("the expression ends early")
    token = tokens[at]
    if token == "~":
        value, at = _unary(tokens, at + 1)
        return ~value, at
    if token == "-":
        value, at = _unary(tokens, at + 1)
        return -value, at
    if token == "(":
        if at + 2 < len(tokens) and _TYPES.match(tokens[at + 1]) and tokens[at + 2] == ")":
            return _unary(tokens, at + 3)
        value, at = _binary(tokens, at + 1, 0)
        if at >= len(tokens) or tokens[at] != ")":
            raise ValueError("missing )")
        return value, at + 1
    if token[0].isdigit():
        return int(token, 0), at + 1
    raise ValueError(f"unknown name {token!r}")


def migratetype_names(pagetypeinfo: str) -> list[str]:
    """Names by number, from the header of the pageblock counts in /proc/pagetypeinfo; empty if it has
    none."""
    for line in pagetypeinfo.splitlines():
        if line.startswith("Number of blocks type"):
            return line.split()[4:]
    return []
