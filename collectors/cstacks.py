# SPDX-License-Identifier: GPL-2.0-only
"""Kernel stacks, as C: taken now and then, named by a 64-bit hash, sent once.

``bpf_get_stackid`` mixes stacks whose 32-bit hashes collide, and a full table drops them (capture.md 1.7).
Here the frames go into a scratch area of the program, their 64-bit hash into the event's record, and the
frames themselves into a ring of their own when the hash is new (or was pushed out of the LRU map, or its
record was lost: then they are sent again). Two different stacks of one hash are expected once in 2^32 stacks;
the reader compares the frames of repeated ones.
"""

from __future__ import annotations

from string import Template

from collectors.layout import STACK_FRAMES

SEEN_STACKS = 16384
CALLERS = 16384

_DECLARATIONS = """\
struct stack_frames { u64 at[${frames}]; };
struct stack_caller { u64 pid_gfp; u64 order; };
BPF_PERCPU_ARRAY(scratch, struct stack_frames, ${lanes});
BPF_TABLE("lru_hash", u64, u8, stacks_seen, ${seen});
${callers}
"""

_TAKE = """\
static __always_inline u64 take_stack(void *ctx, struct gate_state *g, struct cpu_state *s, u32 kind,
                                      u32 pid, u32 gfp, u32 order) {
    u32 every = g->stack_every;
    if (!every)
        return 0;
    struct lane_state *q = &s->lane[kind];
    if (every > 1 && q->stack_tick++ % every)
        return 0;
${interval}    u32 slot = kind; /* its own: what is passed by address is no constant to verifiers of 6.12 */
    struct stack_frames *f = scratch.lookup(&slot);
    if (!f)
        return 0;
    long bytes = bpf_get_stack(ctx, f->at, sizeof(f->at), 0);
    if (bytes <= 0) {
        q->stack_errors++;
        return 0;
    }
    u32 depth = (u32)bytes / 8;
    u64 hash = 0x9E3779B97F4A7C15ULL + depth;
#pragma unroll
    for (u32 i = 0; i < ${frames}; i++) {
        if (i < depth)
            hash = (hash ^ f->at[i]) * 0xFF51AFD7ED558CCDULL;
        hash ^= hash >> 32;
    }
    hash |= hash == 0;
    if (stacks_seen.lookup(&hash))
        return hash;
    struct stack_rec *e = reserve_stack(&s->stacks[kind]);
    if (!e)
        return hash;
    e->hash = hash;
    e->depth = depth;
    e->kind = kind;
#pragma unroll
    for (u32 i = 0; i < ${frames}; i++)
        e->frames[i] = i < depth ? f->at[i] : 0;
    bpf_ringbuf_submit(e, NO_WAKEUP);
    u8 one = 1;
    stacks_seen.update(&hash, &one);
    return hash;
}
"""

_INTERVAL = """\
    struct stack_caller caller = { (u64)gfp << 32 | pid, order };
    u64 now = bpf_ktime_get_ns();
    u64 *last = stack_last.lookup(&caller);
    if (last && now - *last < ${every_ns}ULL)
        return 0;
    stack_last.update(&caller, &now);
"""


def declarations(lanes: int, every_ns: int) -> str:
    """Maps and types."""
    callers = f'BPF_TABLE("lru_hash", struct stack_caller, u64, stack_last, {CALLERS});' if every_ns else ""
    return Template(_DECLARATIONS).substitute(frames=STACK_FRAMES, lanes=lanes, seen=SEEN_STACKS, callers=callers)


def take_stack(every_ns: int) -> str:
    """The function ``take_stack``: hash of the current kernel stack, 0 when none is due or none can be had."""
    interval = Template(_INTERVAL).substitute(every_ns=every_ns) if every_ns else ""
    return Template(_TAKE).substitute(frames=STACK_FRAMES, interval=interval)
