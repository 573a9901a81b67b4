"""``tracereplay strategies``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracereplay.cli.console import Format, emit, emit_json, emit_rows
from tracereplay.errors import StrategyError, UsageError

if TYPE_CHECKING:
    from tracereplay.strategies.contract import Params


def run(
    name: Annotated[
        str | None, typer.Argument(help="Show one, with its parameters; also path/to/file.py:Name.", metavar="[NAME]")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Try it, and say what it breaks and where.")] = False,
    format: Annotated[Format, typer.Option("--format", help="table, json, csv or parquet.")] = Format.TABLE,
) -> None:
    """List the allocation strategies, or show or check one.

    Example:

    tracereplay strategies compound

    tracereplay strategies --check docs/examples/llfree.py:LLFree
    """
    if check:
        if name is None:
            raise UsageError("--check needs a strategy", hint="write --check NAME or --check path/to/file.py:Name")
        _check(name, format)
        return
    from tracereplay.strategies.registry import find_strategy, known_strategies, load_strategy

    if name is None:
        known = {n: load_strategy(n) for n in known_strategies()}
        if format is Format.TABLE:
            width = max(map(len, known), default=0) + 2
            lines = [_hanging(f"{n:{width}}{p.summary}", "", " " * width) for n, p in known.items()]
            emit("\n".join(line for wrapped in lines for line in wrapped))
        elif format is Format.JSON:
            emit_json([_facts(n, p) | {"parameters": _rows(p)} for n, p in known.items()])
        else:
            facts = [_facts(n, p) for n, p in known.items()]
            emit_rows(list(facts[0]), [list(f.values()) for f in facts], format)
        return
    params = find_strategy(name)
    if format is Format.TABLE:
        emit(_page(params))
    else:
        emit_rows(COLUMNS, [[str(v) if c == "default" else v for c, v in row.items()] for row in _rows(params)], format)


COLUMNS = ["parameter", "default", "unit", "range", "doc", "source"]


def _facts(name: str, params: type[Params]) -> dict[str, Any]:
    return {
        "strategy": name,
        "summary": params.summary,
        "mimics": params.mimics,
        "leaves_out": params.leaves_out,
        "docs": params.docs_page(),
    }


def _rows(params: type[Params]) -> list[dict[str, Any]]:
    rows = [(i.name, i.default, i.unit, i.range_text, i.doc, i.source) for i in params.infos().values()]
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def _check(name: str, format: Format) -> None:
    """Try a strategy; the verdict goes to stdout. Raises StrategyError when a rule is broken."""
    from tracereplay.testing.check import check_strategy
    from tracereplay.testing.findings import RULES

    verdict = check_strategy(name)
    broken = {f.rule: f for f in reversed(verdict.findings)}
    state = {r: "broken" if r in broken else "ok" if r in verdict.passed else "not tried" for r in RULES}
    if format is Format.JSON:
        emit_json(verdict.to_json())
    elif format is Format.TABLE:
        lines = []
        for rule, words in RULES.items():
            lines += textwrap.wrap(f"{state[rule]:10}{rule:10}{words}", 78, subsequent_indent=" " * 20)
            for finding in verdict.findings:
                if finding.rule == rule:
                    lines += textwrap.wrap(
                        str(finding),
                        78,
                        initial_indent="    ",
                        subsequent_indent="    ",
                        break_long_words=False,
                        break_on_hyphens=False,
                    )
                    lines += [f"    > {finding.source[:72]}"] if finding.source else []
        emit("\n".join(lines))
    else:
        rows = [[rule, state[rule], str(broken[rule]) if rule in broken else ""] for rule in RULES]
        emit_rows(["rule", "state", "finding"], rows, format)
    if not verdict.ok:
        raise StrategyError(f"the strategy {name} breaks {len(broken)} of {len(RULES)} rules")


def _page(params: type[Params]) -> str:
    lines = [f"{params.name}: {params.summary}", ""]
    lines += _wrapped("mimics", params.mimics)
    if params.leaves_out:
        lines += _wrapped("leaves out", params.leaves_out)
    if page := params.docs_page():
        lines += _wrapped("docs", page)
    for info in params.infos().values():
        default = str(info.default).lower() if info.kind is bool else info.default
        lines += ["", *_hanging(f"{info.name} = {default}  ({info.range_text}; {info.unit})", "", "    ")]
        lines += _hanging(info.doc, "    ", "    ")
        lines += _hanging(f"source: {info.source}", "    ", "    ")
    if not params.infos():
        lines += ["", "no parameters"]
    return "\n".join(lines)


def _hanging(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, 78, initial_indent=first, subsequent_indent=rest)


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label}: {text}", 78, subsequent_indent="    ")
