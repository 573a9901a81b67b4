"""``tracereplay replay`` of several traces."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from tracereplay.cli.console import Format, emit, emit_rows, note, progress, text_table, warn
from tracereplay.cli.fleet_view import STRICT, fleet_of, remark, warn_of
from tracereplay.errors import FleetError
from tracereplay.report.numbers import figure, span

if TYPE_CHECKING:
    from tracereplay.trace.fleet import Failure, Member
    from tracereplay.whatif.fleet_replay import Question

SCHEMA = 1
WARNINGS = 8
"""Different warnings of traces that are shown."""


def replay_fleet(
    arguments: Sequence[str],
    question: Question,
    *,
    strict: bool,
    executor: str,
    workers: int | None,
    output: str | None,
    format: Format,
) -> None:
    """Replay each, show rows of traces and of the fleet. Raises FleetError when none can be replayed."""
    from tracereplay.cost.fleet import FleetCost
    from tracereplay.cost.profile import load_profile
    from tracereplay.trace.fleet import TRACE, WHOLE, Failure
    from tracereplay.trace.outputs import written
    from tracereplay.whatif.executors import open_executor
    from tracereplay.whatif.fleet_replay import led, replays

    fleet = fleet_of(arguments, strict=strict)
    failures = list(fleet.failures)
    costs = FleetCost(load_profile(question.profile), question.seed)
    cautions: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryFile("w+") as file, progress("traces", len(fleet.members)) as advance:
        places: dict[Member, int] = {}
        with open_executor(executor, workers) as opened:
            for member, result in replays(fleet, question, opened, workers=opened.workers, note=note):
                advance(1)
                if isinstance(result, Failure):
                    if strict:
                        raise FleetError(f"{result.location}: {result.error}", hint=STRICT)
                    failures.append(result)
                    continue
                places[member] = file.tell()
                file.write(json.dumps(member.columns() | result, allow_nan=False) + "\n")
        kept = Kept(file, [places[m] for m in fleet.members if m in places])
        replayed = [m for m in fleet.members if m in places]
        for member, line in zip(replayed, kept.lines(), strict=True):  # in this order, whichever finished first
            result = json.loads(line)
            cautions.update(result["warnings"])
            costs.add(member.host, int(result["machine"]["cpus"]), result["results"])
            rows += [led(member, fleet.names) | row for row in _rows(result)]
        if not replayed:
            raise FleetError(f"no trace can be replayed: {failures[0].location}: {failures[0].error}")
        whole = _whole(costs.to_json(), replayed, failures)
        lead: dict[str, str | None] = dict.fromkeys(fleet.names)
        rows += [lead | {"host": WHOLE} | row for row in _fleet_rows(whole)]
        if output is not None:
            with written(output) as made, made.open("w", encoding="utf-8") as out:
                out.writelines(_document(whole, kept))
            note(f"result: {output}")
        if format is Format.JSON:
            for text in _document(whole, kept):
                emit(text, end="")
    if format is Format.TABLE:
        emit(_table(rows, whole, [n for n in fleet.names if n != TRACE]))
    elif format is not Format.JSON:
        emit_rows(list(rows[0]), [list(row.values()) for row in rows], format)
    for text, times in cautions.most_common(WARNINGS):
        warn(f"{times} trace{'s' if times != 1 else ''}: {text}")
    if len(cautions) > WARNINGS:
        warn(f"{len(cautions) - WARNINGS} more: --format json has those of each trace")
    warn_of(failures)
    remark(replayed, failures)


class Kept:
    """Results on disk, a line each, in the order of the fleet."""

    def __init__(self, file: IO[str], places: Sequence[int]) -> None:
        self._file, self._places = file, places

    def lines(self) -> Iterator[str]:
        """The JSON of each."""
        for place in self._places:
            self._file.seek(place)
            yield self._file.readline().rstrip("\n")


def _whole(found: dict[str, Any], members: Sequence[Member], failures: Sequence[Failure]) -> dict[str, Any]:
    return {
        "traces": len(members),
        "failed": [f.to_json() for f in failures],
        **found,
    }


def _document(whole: Mapping[str, Any], kept: Kept) -> Iterator[str]:
    """The JSON of the fleet and of its traces, a trace at a time."""
    yield f'{{"schema": {SCHEMA}, "fleet": {json.dumps(whole, allow_nan=False)}, "traces": ['
    for k, line in enumerate(kept.lines()):
        yield (",\n" if k else "\n") + line
    yield "\n]}\n"


def _rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of a trace, one for each strategy."""
    ratios = {row["label"]: (row["ratio"], row["ratio_interval95"]) for row in result["comparison"]}
    base = next((row["baseline"] for row in result["comparison"]), None)
    for entry in result["results"]:
        alone = (1.0 if entry["label"] == base else None, None)
        ratio, ends = ratios.get(entry["label"], alone)
        yield _row(entry, result["demand"]["targeted_pages"], ratio, ends, None)


def _fleet_rows(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for i, entry in enumerate(whole["results"]):
        pages = sum(host["pages"] for host in whole["hosts"])
        yield _row(entry, pages, entry["ratio"], entry["ratio_interval95"], whole["results"][i]["cheapest_hosts"])


def _row(
    entry: Mapping[str, Any], pages: int, ratio: float | None, ends: Sequence[float] | None, cheapest: int | None
) -> dict[str, Any]:
    cost = entry["cost"]
    page = cost["per_page_interval95"] or [None, None]
    return {
        "label": entry["label"],
        "strategy": entry["strategy"],
        "pages": pages,
        "unit": cost["unit"],
        "total": cost["total"],
        "low95": cost["interval95"][0],
        "high95": cost["interval95"][1],
        "per_page": cost["per_page"],
        "per_page_low95": page[0],
        "per_page_high95": page[1],
        "per_request_mean": cost["per_request"]["mean"],
        "ratio": ratio,
        "ratio_low95": None if ends is None else ends[0],
        "ratio_high95": None if ends is None else ends[1],
        "cheapest_hosts": cheapest,
        **entry["counters"],
    }


def _table(rows: Sequence[Mapping[str, Any]], whole: Mapping[str, Any], lead: Sequence[str]) -> str:
    """Costs of a page by trace and of the fleet, then where each strategy is cheapest and what intervals are of."""
    unit, base = whole["unit"], whole["baseline"]
    shown = [
        [
            *(row[name] for name in lead),
            row["label"],
            row["pages"],
            figure(row["per_page"]),
            "-" if row["per_page_low95"] is None else span((row["per_page_low95"], row["per_page_high95"])),
            figure(row["ratio"]),
            "-" if row["ratio_low95"] is None else span((row["ratio_low95"], row["ratio_high95"])),
        ]
        for row in rows
    ]
    heads = [*lead, "strategy", "pages", f"{unit}/page", "95 %", f"of {base}", "95 %"]
    used = [k for k in range(len(heads)) if any(row[k] is not None for row in shown)]
    parts = [text_table([heads[k] for k in used], [[row[k] for k in used] for row in shown])]
    n = len(whole["hosts"])
    least = ", ".join(f"{e['label']} {e['cheapest_hosts']}" for e in whole["results"])
    parts.append(f"cheapest on so many of {n} hosts: {least}")
    parts.append(f"sampling: {whole['sampling']['note']}")
    return "\n\n".join(parts)
