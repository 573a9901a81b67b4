"""What a running capture shows on a terminal: rates by kind, loss, size, rings, own cost, top callers.

Drawn about once a second, when the collector tells its state; nothing is drawn in between. Nothing is shown
where standard error is no terminal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tracereplay.kernel.allocators import ALLOCATOR
from tracereplay.trace.stacks import TRACING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

    from tracereplay.kernel.kallsyms import KernelSymbols
    from tracereplay.trace.capture import CaptureOptions
    from tracereplay.trace.progress import Progress

MIN_WIDTH = 24
MAX_WIDTH = 80
TOP_CALLERS = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for, as far as the view shows it."""

    name: str
    """Of the trace."""
    duration_s: float | None = None
    limits: tuple[str, ...] = ()
    """Words on what bounds the capture, for example ``keeps the last 600 s``."""


def view_of(out: Path, options: CaptureOptions) -> CaptureView | None:
    """The view of a capture; None where there is no terminal for it, or a command has the terminal."""
    limits = []
    if options.flight_s:
        limits.append(f"keeps the last {options.flight_s:,.0f} s")
    if options.max_bytes:
        limits.append(f"at most {_bytes(options.max_bytes)}")
    view = CaptureView(Plan(out.name, options.duration_s, tuple(limits)))
    if options.command or not view.shown:
        return None
    if options.stacks and not options.via:
        from tracereplay.kernel.kallsyms import KernelSymbols

        view.symbols = KernelSymbols.of_this_host()  # now: it takes a tenth of a second that recording lacks later
    return view


class CaptureView:
    """The view on a terminal; ``show`` takes each state, ``close`` takes the view away again."""

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        """``console``: standard error's."""
        from rich.console import Console

        self._plan = plan
        self.symbols: KernelSymbols | None = None
        """This host's, where it is the one that is captured."""
        self._console = console or Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._before: Progress | None = None

    @property
    def shown(self) -> bool:
        """Whether there is a terminal that can redraw lines."""
        return self._console.is_terminal and not self._console.is_dumb_terminal

    def show(self, state: Progress) -> None:
        """Draw a state."""
        if not self.shown:
            return
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            # Not its own thread, not other people's streams: one drawing for each state, by this thread.
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
                vertical_overflow="crop",
            )
            self._live.start()
        width, height = self._size()
        lines = draw(state, self._before, self._plan, self.symbols, width=width - 1, height=height - 1)
        self._live.update(Text("\n".join(lines), no_wrap=True, overflow="crop"), refresh=True)
        self._before = state

    def _size(self) -> tuple[int, int]:
        """Columns and lines as they are now, whatever COLUMNS says."""
        try:
            return os.get_terminal_size(self._console.file.fileno())
        except OSError:
            return self._console.size

    def close(self) -> None:
        """Take the view away and leave the cursor as it was. Safe to call again."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def draw(
    state: Progress,
    before: Progress | None,
    plan: Plan,
    symbols: KernelSymbols | None = None,
    *,
    width: int = MAX_WIDTH,
    height: int = 24,
) -> list[str]:
    """The lines of the view, none longer than ``width``. ``before``: the state of the last drawing, for rates."""
    width = max(MIN_WIDTH, min(width, MAX_WIDTH))
    span = state.elapsed_s - before.elapsed_s if before is not None else state.elapsed_s
    kinds = before.kinds if before is not None else {}
    rates = {kind: (n - kinds.get(kind, 0)) / span if span > 0 else 0.0 for kind, n in state.kinds.items()}
    head = [plan.name, _time(state.elapsed_s, plan.duration_s), f"{_bytes(state.bytes_written)} written", *plan.limits]
    lines = _packed(head, width, "  ")
    lines += _packed([_lost(state)], width)
    lines += ["", *_kinds(state, rates, width), ""]
    lines += _row("rings", _rings(state), width)
    lines += _row("own cost", _cost(state, before, span), width)
    lines += _row("left out", _shed(state), width)
    callers = _callers(state, symbols)
    if callers:
        lines += ["", f"{'pages':>13}  allocated by", *(f"{pages:>13,}  {name}" for name, pages in callers)]
    return [_cut(line, width) for line in lines[: max(height, 3)]]


def _time(elapsed_s: float, duration_s: float | None) -> str:
    if duration_s is None:
        return f"{elapsed_s:,.0f} s"
    return f"{elapsed_s:,.0f} of {duration_s:,.0f} s, {max(0.0, duration_s - elapsed_s):,.0f} to go"


def _lost(state: Progress) -> str:
    if not state.lost and not state.lost_by_class:
        return "none lost"
    classes = ", ".join(f"{name} {n:,}" for name, n in sorted(state.lost_by_class.items()))
    return f"LOST {state.lost:,}" + (f" ({classes})" if classes else "")


def _kinds(state: Progress, rates: Mapping[str, float], width: int) -> list[str]:
    known = sorted(state.kinds, key=lambda kind: -state.kinds[kind])
    rows = [(kind, rates.get(kind, 0.0), state.kinds[kind]) for kind in known[:10]]
    if len(known) > 10:
        rest = known[10:]
        rows.append((f"{len(rest)} others", sum(rates.get(k, 0.0) for k in rest), sum(state.kinds[k] for k in rest)))
    rows.append(("all", sum(rates.values()), state.events))
    name = max(5, *(len(row[0]) for row in rows))
    number = max(8, min(16, (width - name) // 2))
    return [
        f"{'event':<{name}}{'per second':>{number}}{'total':>{number}}",
        *(f"{kind:<{name}}{rate:>{number},.0f}{n:>{number},}" for kind, rate, n in rows),
    ]


def _rings(state: Progress) -> list[str]:
    """Fill since the last word, and the highest so far, by ring, those that were used."""
    fill = state.cost.get("ring_fill") or {}
    high = state.cost.get("ring_high_water_bytes") or {}
    told = []
    for ring in dict.fromkeys([*high, *fill]):
        size = state.ring_bytes.get(ring)
        now, most = fill.get(ring, 0.0), (high.get(ring, 0) / size if size else None)
        if now or most:
            told.append(f"{ring} {_percent(now)}" + (f" (highest {_percent(most)})" if most is not None else ""))
    return told


def _cost(state: Progress, before: Progress | None, span: float) -> list[str]:
    """Shares of one core in the last interval; the programs' as last measured."""
    cost = state.cost
    told = []
    if before is not None and span > 0:
        used = float(cost.get("cpu_seconds", 0.0)) - float(before.cost.get("cpu_seconds", 0.0))
        told.append(f"collector {_percent(used / span)}")
    if cost.get("bpf_share") is not None:
        told.append(f"BPF programs {_percent(float(cost['bpf_share']))}")
    if before is not None and span > 0:
        told.append(f"writer {_percent((state.writer_cpu_s - before.writer_cpu_s) / span)}")
    return [*told, "of one core"] if told else []


def _shed(state: Progress) -> list[str]:
    if state.shed is None:
        return []
    stacks, sample = state.shed.get("stacks"), int(state.shed.get("sample", 1))
    told = [f"all but 1 caller in {sample}"] if sample > 1 else []
    if stacks is not None and not told:
        told.append("all stacks" if not stacks else f"all but 1 stack in {stacks}")
    return [*told, f"({state.shed.get('reason', '')})"]


def _callers(state: Progress, symbols: KernelSymbols | None) -> list[tuple[str, int]]:
    """Names of the functions that allocated, with their pages; addresses where there are no names."""
    if not state.stacks:
        return []
    known = symbols is not None and len(symbols) > 0
    shared = 0 if known else _shared([frames for frames, _ in state.stacks])
    pages: dict[str, int] = {}
    for frames, n in state.stacks:
        name = _caller(frames, symbols) if known and symbols is not None else hex(frames[min(shared, len(frames) - 1)])
        pages[name] = pages.get(name, 0) + n
    return sorted(pages.items(), key=lambda item: -item[1])[:TOP_CALLERS]


def _caller(frames: Sequence[int], symbols: KernelSymbols) -> str:
    """The first function that belongs neither to tracing nor to the allocator."""
    names = [symbols.name(address) for address in frames]
    inner = max((i for i, n in enumerate(names) if n is not None and n.startswith(TRACING)), default=-1)
    outside = list(zip(frames, names, strict=True))[inner + 1 :] or [(frames[-1], names[-1])]
    for address, name in outside:
        if name is None:
            return hex(address)
        if not ALLOCATOR.match(name):
            return name
    return outside[-1][1] or hex(outside[-1][0])


def _shared(stacks: Sequence[Sequence[int]]) -> int:
    """How many of the innermost frames all stacks have in common: tracing and the allocator."""
    if len(stacks) < 2:
        return 0
    return next((i for i, frames in enumerate(zip(*stacks, strict=False)) if len(set(frames)) > 1), 0)


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 or not percent else f"{percent:.1f} %" if percent >= 0.05 else "0 %"


def _bytes(count: int) -> str:
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:,.1f} {unit}"


def _row(name: str, parts: Sequence[str], width: int) -> list[str]:
    """A named line; what does not fit goes on below, indented."""
    if not parts:
        return []
    indent = " " * 10 if width >= 50 else "  "
    lines = _packed(parts, width - len(indent), ", ")
    first = f"{name:<10}{lines[0]}" if width >= 50 else name
    rest = lines[1:] if width >= 50 else lines
    return [first, *(indent + line for line in rest)]


def _packed(parts: Sequence[str], width: int, between: str = "  ") -> list[str]:
    """As many parts on each line as fit."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(between) + len(part) <= width:
            lines[-1] += between + part
        else:
            lines.append(part)
    return lines


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"
