"""Docs are held to the code: links resolve, commands exist with their options, the price table is the profile's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from tracereplay.cli.app import app
from tracereplay.cost.profile import load_profile
from tracereplay.report.numbers import figure, span

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "traces").rglob("*.md"))]
BEGIN, END = "<!-- prices:begin", "<!-- prices:end -->"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [p.relative_to(ROOT / "docs") for p in (ROOT / "docs").rglob("*.md") if p.name != "README.md"]
    assert [str(p) for p in pages if f"]({p})" not in index] == []


def commands_in(text: str) -> list[list[str]]:
    """Command lines of code blocks (fenced, or indented by four) and of inline code that start with tracereplay."""
    found = [shlex.split(line, comments=True) for line in re.findall(r"`(tracereplay [^`\n]*)`", text)]
    lines = text.replace("\\\n", " ").splitlines()
    for i, line in enumerate(lines):
        if not re.match(r"( {4})?(\$ )?tracereplay ", line):
            continue
        for end in range(i + 1, len(lines) + 1):  # a quoted argument may span lines
            try:
                words = shlex.split("\n".join(lines[i:end]).strip().removeprefix("$ "), comments=True)
            except ValueError:
                continue
            found.append(words)
            break
    return found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_exist(page: Path) -> None:
    group = typer.main.get_command(app)
    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }
    for words in commands_in(page.read_text()):
        verb, *rest = words[1:] if len(words) > 1 else [""]
        if verb.startswith("-"):
            continue
        assert verb in known, words
        rest = rest[: rest.index("--")] if "--" in rest else rest
        for word in rest:
            if re.fullmatch(r"--?[a-z][a-z-]*", word) and word != "--help":
                assert word in known[verb], (words, word)


def test_commands_are_found() -> None:
    text = (
        "x `tracereplay info T` y\n\n    tracereplay query T 'a b' # c\n    $ tracereplay report T\nsee tracereplay\n"
        'tracereplay query T "a\nb"\n'
    )
    assert sorted(commands_in(text)) == [
        ["tracereplay", "info", "T"],
        ["tracereplay", "query", "T", "a\nb"],
        ["tracereplay", "query", "T", "a b"],
        ["tracereplay", "report", "T"],
    ]


def price_tables() -> str:
    """The profile as Markdown."""
    profile = load_profile("brouer-2021")
    lines = [
        "",
        "| primitive | ns | 95 % range or formula | evidence | multiplies | origin |",
        "|---|---|---|---|---|---|",
    ]
    for c in profile.coefficients:
        extent = f"`{c.formula}`" if c.low is None or c.high is None else span((c.low, c.high))
        counters = ", ".join(f"`{counter}`" for counter in c.counters)
        lines.append(f"| {c.name} | {figure(c.value)} | {extent} | {c.evidence} | {counters} | {c.source} |")
    lines += [
        "",
        "Parameters of the formulas:",
        "",
        "| parameter | value | 95 % range | unit | evidence | origin |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {p.name} | {figure(p.value)} | {span((p.low, p.high))} | {p.unit} | {p.evidence} | {p.source} |"
        for p in profile.parameters
    ]
    for title, rows in (("Implied", profile.implied), ("Unpriced", profile.unpriced)):
        lines += ["", f"{title}:", "", "| counter | reason |", "|---|---|"]
        lines += [f"| `{counter}` | {reason} |" for counter, reason in rows.items()]
    return "\n".join([*lines, "", ""])


def test_price_table_is_the_profile(request: pytest.FixtureRequest) -> None:
    page = ROOT / "docs" / "cost-model.md"
    text = page.read_text()
    start = text.index("\n", text.index(BEGIN)) + 1
    end = text.index(END)
    if request.config.getoption("--update-golden"):
        page.write_text(text[:start] + price_tables() + text[end:])
        text = page.read_text()
        end = text.index(END)
    assert text[start:end] == price_tables(), "accept with: pytest --update-golden tests/unit/test_docs.py"


def test_own_profile_of_the_docs_loads(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "cost-model.md").read_text()
    path = tmp_path / "my.toml"
    path.write_text(re.findall(r"```toml\n(.*?)```", text, flags=re.S)[0])
    assert {c.name: c.value for c in load_profile(path).coefficients}["zero_page"] == 85
