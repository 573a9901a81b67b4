"""Which requests the strategy serves: the selector of ``--target`` and the compiled pass that applies it.

A selector is a list of alternatives; each alternative is terms joined by commas, all of which must hold:

===================  ==================================================================================
``batches``          at least two pages recognised as one caller's batch (default)
``all``              every traced request and every bio's: an upper bound
``none``             nothing
``caller:GLOB``      label of the caller: with stacks, the first function outside the allocator
``symbol:GLOB``      any function in the stack
``comm:GLOB``        name of the task, e.g. ``comm:kworker*``; of a path's request, of the bio's task
``cgroup:GLOB``      cgroup of the task, e.g. ``cgroup:/system.slice/*``
``device:MAJ,MIN``   made by a path from a bio of this device
``gfp:NAME``         every bit of the name or number is set in the mask, e.g. ``gfp:__GFP_HIGHMEM``
``pages>=N``         size; also ``<=``, ``=``, ``>`` and ``<``
``origin:bio``       made from a bio; also ``path`` (on the path), ``unseen`` and ``traced``
===================  ==================================================================================

Alternatives are separate selectors (``--target A --target B``). Requests whose allocation nobody saw are taken by
``origin:unseen`` only. What depends on the task (``comm``, ``cgroup``) is evaluated once for each task, what depends on
the caller once for each caller; the pass looks both up.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from tracereplay.compiled import kernel
from tracereplay.demand.callers import TRACER, Callers, comm_group, slot_of
from tracereplay.demand.layers import device_number
from tracereplay.demand.state import CALLERS, HASH, PIDS, Array
from tracereplay.demand.stream import ALLOC, BATCH, FIRST, FROM_BIO, ON_PATH, TARGETED, UNSEEN
from tracereplay.errors import UsageError, nearest
from tracereplay.kernel.constants import dev_text
from tracereplay.kernel.gfp import gfp_table, parse_gfp

_ORIGINS = {"bio": (FROM_BIO, 0), "path": (ON_PATH, 0), "unseen": (UNSEEN, 0), "traced": (0, FROM_BIO | UNSEEN)}
_GLOBS = ("caller", "symbol", "comm", "cgroup")
_KEYWORDS = ("batches", "all", "none", *(f"{g}:" for g in _GLOBS), "device:", "gfp:", "pages>=", "origin:")
_PAGES = re.compile(r"^pages(>=|<=|=|>|<)(\d+)$")
_DEVICE = re.compile(r"device:\s*(\d+),(\d+)")
_MOST = 1 << 30
GROUPS = 256
"""Groups of tasks that selectors tell apart, at most."""


@dataclass(slots=True)
class Alternative:
    """One list of terms."""

    need: int = 0
    never: int = UNSEEN
    least: int = 1
    most: int = _MOST
    callers: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    comms: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    devices: tuple[int, ...] = ()
    gfp: int = 0

    def takes_caller(self, callers: Callers, number: int) -> bool:
        """Whether this alternative may take requests of a caller."""
        label = callers.labels[number]
        return (
            all(fnmatchcase(label, g) for g in self.callers)
            and all(g in callers.symbols[number] for g in self.symbols)
            and all(label == bio_label(d) for d in self.devices)
        )

    def takes_task(self, comm: str, cgroup: str | None) -> bool:
        """Whether it may take requests of a task: the tracer's own only by its name."""
        if comm == TRACER and TRACER not in (*self.comms, *self.callers):
            return False
        return all(fnmatchcase(comm, g) or fnmatchcase(comm_group(comm), g) for g in self.comms) and all(
            cgroup is not None and fnmatchcase(cgroup, g) for g in self.cgroups
        )


def bio_label(device: int) -> str:
    """Label of the caller of the requests that a path makes from bios of a device."""
    return f"bio {dev_text(device)}"


class Target:
    """A parsed selector. ``text`` is what the user wrote."""

    def __init__(self, selectors: str | Sequence[str], *, path: bool = False, release: str | None = None) -> None:
        """Parse. Raises UsageError naming the term that is wrong.

        ``path``: the default selector also takes the requests of the path.
        """
        given = [selectors] if isinstance(selectors, str) else list(selectors) or ["batches"]
        self.text = " | ".join(given)
        names = gfp_table(release)
        self.alternatives = [a for text in given for a in _parse(text, names)]
        if path and given == ["batches"]:
            self.alternatives.append(Alternative(need=ON_PATH))
        k = max(len(self.alternatives), 1)
        self.masks: Array = np.zeros((k, CALLERS), np.uint8)
        self.limits: Array = np.zeros((k, 5), np.int64)
        self.tasks: Array = np.zeros((k, GROUPS), np.uint8)
        for row, a in enumerate(self.alternatives):
            self.limits[row] = (a.need, a.never, a.least, a.most, a.gfp)
            self.tasks[row, 0] = a.takes_task("", None)
        if not self.alternatives:
            self.limits[0] = (0, 0, 1, 0, 0)
        self._known = 0
        self._groups = {tuple(self.tasks[:, 0].tolist()): 0}

    @property
    def tables(self) -> tuple[Array, Array, Array]:
        """What :func:`select` reads."""
        return self.masks, self.tasks, self.limits

    @property
    def symbols(self) -> list[str]:
        """Globs of functions that callers' stacks are held against."""
        return sorted({g for a in self.alternatives for g in a.symbols})

    def group(self, tasks: Mapping[int, str], cgroups: Mapping[int, str]) -> Array:
        """Table pid -> group of tasks that the selectors do not tell apart; group 0: no name, no cgroup.

        Raises UsageError when there are too many groups.
        """
        size = min(max([*tasks, *cgroups], default=0) + 1, PIDS)
        groups: Array = np.zeros(size, np.uint8)
        for pid in {*tasks, *cgroups}:
            found = self.group_of(tasks.get(pid, ""), cgroups.get(pid))
            if pid < size:
                groups[pid] = found
        return groups

    def group_of(self, comm: str, cgroup: str | None) -> int:
        """Group of a task. Raises UsageError when there are too many groups."""
        found = [a.takes_task(comm, cgroup) for a in self.alternatives] or [False]
        key = tuple(map(int, found))
        if key not in self._groups:
            if len(self._groups) == GROUPS:
                raise UsageError("too many alternatives with comm: or cgroup:", hint="give fewer --target options")
            self.tasks[:, len(self._groups)] = key
            self._groups[key] = len(self._groups)
        return self._groups[key]

    def learn(self, callers: Callers) -> None:
        """Evaluate callers that are new since the last call."""
        for number in range(self._known, len(callers)):
            for row, a in enumerate(self.alternatives):
                self.masks[row, number] = a.takes_caller(callers, number)
        self._known = len(callers)


def _parse(text: str, names: dict[str, int]) -> list[Alternative]:
    made = Alternative()
    terms = [t.strip() for t in _DEVICE.sub(r"device:\1:\2", text).split(",") if t.strip()]
    if not terms:
        raise UsageError("empty target", hint=f"one of: {', '.join(_KEYWORDS)}")
    if "none" in terms:
        return []
    for term in terms:
        head, _, value = term.partition(":")
        if term == "batches":
            made.need |= BATCH
        elif term == "all":
            continue
        elif match := _PAGES.match(term):
            n = int(match[2])
            least, most = {
                ">=": (n, _MOST),
                ">": (n + 1, _MOST),
                "<=": (1, n),
                "<": (1, n - 1),
                "=": (n, n),
            }[match[1]]
            made.least, made.most = max(made.least, least), min(made.most, most)
        elif head in _GLOBS and value:
            setattr(made, f"{head}s", (*getattr(made, f"{head}s"), value))
        elif head == "device" and value:
            number = device_number(value)
            if number is None:
                raise UsageError(f"{value!r} in a target is no device", hint="device:MAJOR,MINOR")
            made.devices += (number,)
        elif head == "gfp" and value:
            try:
                made.gfp |= parse_gfp(value, names)
            except (KeyError, ValueError):
                guess = nearest(value, list(names))
                raise UsageError(
                    f"unknown gfp name in target {term!r}", hint=f"did you mean {guess!r}?" if guess else None
                ) from None
        elif head == "origin" and value in _ORIGINS:
            need, never = _ORIGINS[value]
            made.need |= need
            made.never = (made.never | never) & ~need
        else:
            guess = nearest(term, [*_KEYWORDS, *(f"origin:{o}" for o in _ORIGINS)])
            raise UsageError(
                f"unknown target {term!r}",
                hint=(f"did you mean {guess!r}? " if guess else "") + f"terms: {', '.join(_KEYWORDS)}",
            )
    return [made]


def size_slot(key: int, mask: int) -> int:
    """First slot of a key in the table of sizes."""
    return slot_of(key, mask)


SUM_REQUESTS, SUM_PAGES, SUM_TARGETED, SUM_TARGETED_PAGES, SUM_SIZES = range(5)


@kernel
def select(
    out: Array, masks: Array, tasks: Array, limits: Array, size_keys: Array, size_counts: Array, sums: Array
) -> bool:
    """Set TARGETED on a batch and count its requests by caller and size. False when the size table is half full.

    ``size_keys`` holds (caller << 16 | pages) + 1 by open addressing. The group of a request's task is in
    ``reserved``, which is 0 afterwards.
    """
    mask = size_keys.shape[0] - 1
    taken = False
    for i in range(out.shape[0]):
        op = out[i]
        if op.kind != ALLOC:
            continue
        if op.flags & FIRST:
            caller = np.int64(op.caller)
            pages = np.int64(op.pages)
            flags = np.int64(op.flags)
            taken = False
            for k in range(limits.shape[0]):
                if (
                    masks[k, caller]
                    and tasks[k, op.reserved]
                    and np.int64(op.gfp) & limits[k, 4] == limits[k, 4]
                    and flags & limits[k, 0] == limits[k, 0]
                    and not flags & limits[k, 1]
                    and pages >= limits[k, 2]
                    and pages <= limits[k, 3]
                ):
                    taken = True
                    break
            sums[SUM_REQUESTS] += 1
            sums[SUM_PAGES] += pages
            if taken:
                sums[SUM_TARGETED] += 1
                sums[SUM_TARGETED_PAGES] += pages
            key = (caller << 16 | pages) + 1
            h = ((key * HASH) >> 12) & mask
            while size_keys[h] != 0 and size_keys[h] != key:
                h = (h + 1) & mask
            if size_keys[h] == 0:
                size_keys[h] = key
                sums[SUM_SIZES] += 1
            size_counts[h] += 1
        op.reserved = 0
        if taken:
            op.flags |= TARGETED
    return bool(sums[SUM_SIZES] * 2 < size_keys.shape[0])


def grown_sizes(keys: Array, counts: Array) -> tuple[Array, Array]:
    """The table of request sizes with twice the room."""
    new_keys, new_counts = np.zeros(2 * len(keys), np.int64), np.zeros(2 * len(keys), np.int64)
    mask = len(new_keys) - 1
    for at in np.flatnonzero(keys).tolist():
        h = size_slot(int(keys[at]), mask)
        while new_keys[h]:
            h = (h + 1) & mask
        new_keys[h], new_counts[h] = keys[at], counts[at]
    return new_keys, new_counts
