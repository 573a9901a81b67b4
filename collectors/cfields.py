# SPDX-License-Identifier: GPL-2.0-only
"""From a tracepoint's fields to the record's, as C statements.

Fields are read at the offsets of the ``format`` files through a struct with explicit padding, so no kernel
type has to be known by name and programs for other kernels can be generated, and passed through the
verifier, anywhere.
"""

from __future__ import annotations

from collectors.layout import Ring
from collectors.tracepoints import Format, FormatField, Probe

FILLED_ELSEWHERE = ("ts", "seq", "kind", "flags", "stack", "cgroup")
"""Fields that the surrounding program fills."""


def c_type(field: FormatField) -> str:
    """C type of a scalar field, by size and sign."""
    return ("s" if field.signed else "u") + str(field.size * 8)


def args_struct(function: str, fmt: Format) -> str:
    """The tracepoint's record as a C struct: the fields at their offsets, explicit padding between."""
    lines: list[str] = []
    at = 0
    for field in sorted(fmt.fields.values(), key=lambda f: f.offset):
        if field.offset < at:
            continue
        if field.offset > at:
            lines.append(f"    char pad_{at}[{field.offset - at}];")
        if field.array or field.size not in (1, 2, 4, 8):
            lines.append(f"    char {field.name}[{field.size}];")
        else:
            lines.append(f"    {c_type(field)} {field.name};")
        at = field.offset + field.size
    checks = "\n".join(
        f'_Static_assert(__builtin_offsetof(struct {function}_args, {f.name}) == {f.offset}, "{f.name}");'
        for f in fmt.fields.values()
    )
    body = "\n".join(lines)
    return f"struct {function}_args {{\n{body}\n}};\n{checks}\n"


def tracepoint_values(probe: Probe, fmt: Format) -> dict[str, str]:
    """C expression by record field, for the fields that this kernel's event has."""
    found: dict[str, str] = {}
    for name, event_field in probe.copy.items():
        field = fmt.fields.get(event_field.rstrip("?"))
        if field is not None:
            found[name] = f"args->{field.name}"
    return found


def raw_values(probe: Probe) -> dict[str, str]:
    """C expression by record field, from the locals of ``raw_locals`` (``g`` is in scope)."""
    found = {name: name for name in probe.raw if name != "page"}
    found["pfn"] = "(page ? (page - g->page_base) >> g->page_shift : ~0ULL)"
    return found


def raw_locals(probe: Probe) -> list[str]:
    """Statements that read the tracepoint's arguments, before anything else: a later read through a moved context
    pointer is what verifiers refuse."""
    return [*(f"u64 {name} = ctx->args[{at}];" for at, name in enumerate(probe.raw)), "BARRIER;"]


def _copy_text(target: str, width: int, field: FormatField) -> list[str]:
    """Copy a char array in the largest pieces that its offset allows (the verifier wants aligned loads)."""
    size = min(width, field.size)
    lines = [f"__builtin_memset(e->{target}, 0, {width});"] if size < width else []
    at = 0
    while at < size:
        step = next(n for n in (8, 4, 2, 1) if n <= size - at and (field.offset + at) % n == 0)
        lines.append(f"__builtin_memcpy(e->{target} + {at}, (char *)args + {field.offset + at}, {step});")
        at += step
    return lines


def assignments(probe: Probe, ring: Ring, fmt: Format, values: dict[str, str]) -> list[str]:
    """Statements that fill the record: every byte is written, since reserved memory holds old data."""
    lines: list[str] = []
    for target in ring.fields:
        if target.name in FILLED_ELSEWHERE:
            continue
        if target.base == "char":
            source = fmt.fields.get(probe.copy.get(target.name, "").rstrip("?"))
            if source is None:
                lines.append(f"__builtin_memset(e->{target.name}, 0, {target.size});")
            else:
                lines += _copy_text(target.name, target.size, source)
        elif target.name == "pid" and "pid" not in values:
            lines.append("e->pid = pid;")
        else:
            lines.append(f"e->{target.name} = {values.get(target.name, '0')};")
    for packed in probe.packed:
        if packed.source in fmt.fields:
            value = f"args->{packed.source}"
            value = (
                f"{value} ? {packed.mask << packed.shift}u : 0"
                if packed.mask == 1
                else (f"((u32){value} & {packed.mask}u) << {packed.shift}")
            )
            lines.append(f"e->{packed.target} |= {value};")
    return lines
