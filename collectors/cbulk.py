# SPDX-License-Identifier: GPL-2.0-only
"""The programs on the bulk allocator, as C: one at the entry, one at the return (bulkprobe.py says how)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

KPROBE, FENTRY = "kprobe", "fentry"

ENTRIES_READ = 512
CALLS = 8192
"""Calls that can be under way; a map of 8192 takes half a MiB."""
FRAMES = 8

FLAG_NO_ENTRY = 0x02
"""``flags`` of a record: the call's entry was not seen, so what it asked for is not known."""

ENTRY_FUNCTION, EXIT_FUNCTION = "tr_bulk_entry", "tr_bulk"

_X86 = "r15 r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax ip cs flags sp ss"
MACHINES = {
    "x86_64": (
        " ".join(f"u64 {name};" for name in _X86.split()),
        ("di", "si", "dx", "cx", "r8", "r9"),
        "ax",
        # At the entry the stack pointer is at the return address, at the return just above it.
        "8",
        "u64 caller = 0;\n    bpf_probe_read_kernel(&caller, sizeof(caller), (void *)ctx->sp);",
        "ctx->ip",
    ),
    "aarch64": (
        "u64 x[31]; u64 sp; u64 pc; u64 pstate;",
        ("x[0]", "x[1]", "x[2]", "x[3]", "x[4]", "x[5]"),
        "x[0]",
        "0",
        "u64 caller = ctx->x[30];",
        "ctx->pc",
    ),
}
"""``uname -m`` -> struct pt_regs as C, registers of the arguments, of the result, how far the stack pointer is
higher at the return, C that finds the return address at the entry, and the register that has it at the return."""
_STATE = """\
struct bulk_call { u64 caller; u32 wanted; u32 filled; u32 gfp; u32 pad; };
struct bulk_entries { u64 at[${entries}]; };
struct bulk_frames { u64 at[${frames}]; };
struct bulk_count { u64 entries; u64 exits; };
struct bulk_regs { ${registers} };
BPF_TABLE("lru_hash", u64, struct bulk_call, bulk_calls, ${calls});
BPF_PERCPU_ARRAY(bulk_scratch, struct bulk_entries, 1);
BPF_PERCPU_ARRAY(bulk_stack, struct bulk_frames, 1);
BPF_PERCPU_ARRAY(bulk_counts, struct bulk_count, 1);
"""

_FILLED = """\
/* Entries of the caller's array that hold a page already. Without branches on what is read: the verifier would
   follow each of them. */
static __always_inline u32 bulk_filled(u64 array, u32 wanted) {
    int zero = 0;
    struct bulk_entries *found = bulk_scratch.lookup(&zero);
    u64 bytes = (u64)(wanted > ${entries} ? ${entries} : wanted) * 8;
    asm volatile("" : "+r"(bytes)); /* or the compiler derives the bound anew, in a way that the verifier cannot */
    if (!found || !array || !bytes || bytes > sizeof(found->at))
        return 0;
    if (bpf_probe_read_kernel(found->at, bytes, (void *)array))
        return 0;
    u32 filled = 0;
    for (u32 i = 0; i < ${entries}; i++) {
        if (i * 8 >= bytes)
            break;
        u64 page = found->at[i], minus = -page;
        asm volatile("" : "+r"(minus));
        filled += (page | minus) >> 63;
    }
    return filled;
}
"""

_CALLER = """\
static __always_inline u32 in_allocator(u64 address) {
    return ${inside};
}
static __always_inline u32 in_trampoline(u64 address) {
    return ${trampolines};
}
/* The first frame outside the allocator and its wrappers. */
static __always_inline u64 bulk_caller(void *ctx, u64 caller) {
    int zero = 0;
    struct bulk_frames *f = bulk_stack.lookup(&zero);
    if (!f)
        return caller;
    long bytes = bpf_get_stack(ctx, f->at, sizeof(f->at), 0);
    u32 passed = 0;
    for (u32 i = 0; i < ${frames}; i++) {
        if (bytes < (long)(i + 1) * 8)
            break;
        u64 address = f->at[i];
        if (in_allocator(address))
            passed = 1;
        else if (passed)
            return address;
    }
    return caller;
}
"""

_ENTRY = """\
${head} {
    int zero = 0;
    u64 frame = ${frame};
    struct bulk_call call = {};
    struct bulk_count *n = bulk_counts.lookup(&zero);
    if (n)
        n->entries++;
    call.wanted = ${wanted};
    if ((s32)call.wanted < 0)
        call.wanted = 0;
    call.gfp = ${gfp};
${filled}    ${caller}
    call.caller = caller;
    bulk_calls.update(&frame, &call);
    return 0;
}
"""

_EXIT = """\
${head} {
    int zero = 0;
    u64 frame = ${frame};
    u32 returned = ${result}, flags = ${no_entry};
    struct bulk_call call = {};
    struct bulk_count *n = bulk_counts.lookup(&zero);
    if (n)
        n->exits++;
    struct bulk_call *found = bulk_calls.lookup(&frame);
    if (found) {
        call = *found;
        flags = 0;
        bulk_calls.delete(&frame);
    }
${back}    struct gate_state *g = open_gate();
    if (!g)
        return 0;
    struct cpu_state *s = cpu_of();
    if (!s)
        return 0;
    u32 pid = current_task(s, &s->note[${kind}], ${kind});
    u32 gfp = call.gfp;
    u64 requested = call.wanted > call.filled ? call.wanted - call.filled : 0;
${conditions}    struct bulk_rec *e = reserve_bulk(&s->lane[${kind}]);
    if (!e)
        return 0;
    e->caller = call.caller;
    e->requested = requested;
    e->returned = returned > call.filled ? returned - call.filled : 0;
    e->gfp = gfp;
    e->pid = pid;
    e->kind = ${kind};
    e->flags |= flags;
    e->pad = 0;
    bpf_ringbuf_submit(e, NO_WAKEUP);
    return 0;
}
"""


# Another tracer's return probe may have put its trampoline on the stack before the entry's program looked.
_BACK = """\
    u64 back = ${back};
    if (!in_trampoline(back) && !in_allocator(back))
        call.caller = back;
"""


@dataclass(frozen=True)
class Target:
    """The function to probe, and where its arguments are (counted from 0)."""

    symbol: str
    inside: Sequence[tuple[int, int]] = ()
    """Address ranges [start, end) of the function and of its wrappers; empty when addresses are hidden."""
    trampolines: Sequence[tuple[int, int]] = ()
    """Those of what tracers put in the place of a return address."""
    gfp: int = 0
    wanted: int = 3
    array: int | None = None
    """None: there is none, or it is not known which it is; entries filled before are not taken off then."""
    arguments: int | None = None
    """How many there are; None without BTF."""

    @property
    def known_by(self) -> str:
        """Where the places of the arguments come from."""
        return "name" if self.arguments is None else "BTF"


def source(tap: str, target: Target, machine: str, kind: int, conditions: Sequence[str] = ()) -> str:
    """C of maps, functions and both programs. ``kind``: number of the lane; ``conditions``: statements that leave
    the program unless the call is wanted.

    Raises ValueError for fentry without the number of arguments.
    """
    registers, arguments, result, above, return_address, back = MACHINES[machine]
    kprobe = tap == KPROBE
    if not kprobe and target.arguments is None:
        raise ValueError(f"fentry needs the number of arguments of {target.symbol}")

    def argument(number: int) -> str:
        return f"ctx->{arguments[number]}" if kprobe else f"ctx[{number}]"

    def within(ranges: Sequence[tuple[int, int]]) -> str:
        return " || ".join(f"address - {a:#x}ULL < {b - a:#x}" for a, b in ranges) or "0"

    filled = ""
    if target.array is not None:
        # fentry: a pointer to pointers cannot be read as an argument up to 6.12, but as memory.
        read = f"bpf_probe_read_kernel(&array, 8, (char *)ctx + {8 * target.array});"
        filled = f"    u64 array = {argument(target.array)};\n" if kprobe else f"    u64 array = 0;\n    {read}\n"
        filled += "    call.filled = bulk_filled(array, call.wanted);\n"
    walk = "bulk_caller(ctx, caller)"
    if kprobe:
        caller = f"{return_address}\n    if (in_allocator(caller))\n        caller = {walk};"
    else:
        caller = f"u64 caller = 0;\n    caller = {walk};"
    values = {
        "entries": ENTRIES_READ,
        "frames": FRAMES,
        "calls": CALLS,
        "registers": registers,
        "inside": within(target.inside),
        "trampolines": within(target.trampolines),
        "back": "",
        "kind": kind,
        "no_entry": FLAG_NO_ENTRY,
        "wanted": argument(target.wanted),
        "gfp": argument(target.gfp),
        "filled": filled,
        "caller": caller,
        "result": f"ctx->{result}" if kprobe else f"ctx[{target.arguments}]",
        "conditions": "".join(f"    {line}\n" for line in conditions),
    }
    if kprobe:
        entry = {"head": f"int {ENTRY_FUNCTION}(struct bulk_regs *ctx)", "frame": "ctx->sp"}
        leave = {"head": f"int {EXIT_FUNCTION}(struct bulk_regs *ctx)", "frame": f"ctx->sp - {above}"}
        if target.inside and target.trampolines:
            leave["back"] = Template(_BACK).substitute(back=back)
    else:
        # BCC's macros make the names from which it reads what to attach to; they differ between its versions.
        entry = {"head": f"KFUNC_PROBE({target.symbol})", "frame": "(u64)ctx"}
        leave = {"head": f"KRETFUNC_PROBE({target.symbol})", "frame": "(u64)ctx"}
    parts = [Template(_STATE + _FILLED + _CALLER).substitute(values)]
    parts += [Template(_ENTRY).substitute(values, **entry), Template(_EXIT).substitute(values, **leave)]
    return "\n".join(parts)
