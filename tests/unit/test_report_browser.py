"""The pages in a headless Chromium: nothing asked for, nothing refused, readable at 1280 and 400, usable by keyboard.

One browser for the whole file. Skips where there is no Chromium; ``.ci/env`` installs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.chromium import Browser, chromium
from tests.example_result import example_result
from tests.sweep_samples import HOSTILE, crossing_sweep
from tracereplay.report.accuracy import of_captures
from tracereplay.report.data import build_comparison
from tracereplay.report.html import Report, render
from tracereplay.report.picture import write_pictures
from tracereplay.report.sweep import build_sweep
from tracereplay.report.tracedata import Loss, build_trace_data
from tracereplay.trace.reader import Trace

TRACE = Path(__file__).parents[2] / "traces" / "mixed-6.18"
PROGRAM = chromium()
KINDS = ("trace", "comparison", "sweep")
SIZES = ((1280, False), (400, True))
"""Width, and whether dark."""


def pages() -> dict[str, Report]:
    """A report of each kind, with names that hold markup and one as long as a line."""
    trace = build_trace_data(Trace.open(TRACE))
    tasks = (replace(trace.tasks[0], comm=HOSTILE), *trace.tasks[1:])
    losses = (Loss(0.2, 0.4, 1234, "CPU 0"), Loss(1.1, 1.1, None, "all CPUs"))
    trace = replace(trace, tasks=tasks, losses=losses)
    result = example_result()
    result["results"][1]["label"] = "bulk:" + "batch_cap=16,two_pass=true," * 4
    result["demand"]["by_caller"][0]["caller"] = HOSTILE
    accuracy = of_captures(["6.12"], "its file is not here")
    axes = {"pcp.batch": ["8", "32", "64", "128"], "copies": ["1", "2", "4"]}
    return {
        "trace": Report(trace=trace, commands=("tracereplay report " + "x" * 200,)),
        "comparison": Report(build_comparison(result), accuracy=accuracy, commands=("tracereplay replay",)),
        "sweep": Report(sweep=build_sweep(crossing_sweep(), axes), accuracy=accuracy, commands=("tracereplay whatif",)),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("pages")
    for name, report in pages().items():
        (where / f"{name}.html").write_text(render(report, title=f"{name} {HOSTILE}", made="now"))
        write_pictures(report.files, where / name, "machine: refills 99.8 % / 99.5 %, drains 92.7 % / 87.7 %")
    return where


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip("no Chromium on this host")
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as found:
        yield found


CLIPPED = """
[...document.querySelectorAll("svg")].filter(s => s.getBoundingClientRect().width).flatMap(s => {
  const frame = s.getBoundingClientRect();
  const texts = [...s.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
  const out = texts.filter(([, b]) => b.left < frame.left - 0.5 || b.right > frame.right + 0.5 ||
    b.top < frame.top - 0.5 || b.bottom > frame.bottom + 0.5).map(([t]) => "clipped: " + t);
  texts.forEach(([t, a], i) => texts.slice(i + 1).forEach(([u, b]) => {
    const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (wide > 1 && high > 4) out.push("touching: " + t + " | " + u);
  }));
  return out;
})
"""
"""Texts of pictures that leave them, or lie on each other."""
STATES = """
[...document.querySelectorAll("details")].forEach(d => d.open = true);
document.scrollingElement.scrollWidth
"""
STOPS = """
[...document.querySelectorAll("a[href], summary, input, [tabindex='0']")]
  .filter(e => e.checkVisibility() && (e.type !== "radio" || e.checked)).length
"""
"""How many things Tab must reach: of radio buttons the chosen one of each group."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_page(kind: str, width: int, dark: bool, written: Path, browser: Browser) -> None:
    browser.look(width=width, dark=dark)
    page = written / f"{kind}.html"
    browser.open(page.as_uri())
    assert browser.ask("document.scrollingElement.scrollWidth") <= width
    assert browser.ask(CLIPPED) == []
    assert browser.ask(STATES) <= width
    assert browser.ask(CLIPPED) == []
    assert browser.requests == [page.as_uri()]
    assert browser.complaints == []
    smallest = "Math.min(...[...document.querySelectorAll('svg text')].filter(t => t.getBoundingClientRect().height)"
    assert browser.ask(f"{smallest}.map(t => t.getBoundingClientRect().height))") >= 13


def test_policy_holds(written: Path, browser: Browser) -> None:
    """The same page with a script and a picture in it: neither is run or asked for, and the browser says so."""
    hostile = "<script>document.title = 'run'</script><img src='http://127.0.0.1:9/x.png'/></main>"
    page = written / "hostile.html"
    page.write_text((written / "trace.html").read_text().replace("</main>", hostile))
    browser.open(page.as_uri())
    assert browser.ask("document.title").startswith("trace <script>")
    assert any("Content Security Policy" in text for text in browser.complaints)


@pytest.mark.parametrize("kind", KINDS)
def test_keyboard_reaches_everything(kind: str, written: Path, browser: Browser) -> None:
    browser.look(width=1280)
    browser.open((written / f"{kind}.html").as_uri())
    wanted = browser.ask(STOPS)
    browser.press("Tab")
    assert browser.ask("document.activeElement.className") == "skip"
    assert browser.ask("document.activeElement.getBoundingClientRect().left") >= 0
    browser.ask("window.seen = new Set()")
    for _ in range(wanted + 2):
        browser.ask("void window.seen.add(document.activeElement)")
        browser.press("Tab")
    assert browser.ask("[...window.seen].filter(e => e !== document.body).length") >= wanted
    browser.ask("document.querySelector('nav a').focus({focusVisible: true})")
    assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_keys_do_what_a_pointer_does(written: Path, browser: Browser) -> None:
    browser.look(width=1280)
    browser.open((written / "sweep.html").as_uri())
    browser.ask("document.querySelector('summary').focus()")
    before = browser.ask("document.activeElement.parentElement.open")
    browser.press("Enter")
    assert browser.ask("document.activeElement.parentElement.open") is not before
    browser.press("Space")
    assert browser.ask("document.activeElement.parentElement.open") is before
    shown = "[...document.querySelector('.chooser').querySelectorAll('.panel')].map(p => p.offsetParent !== null)"
    browser.ask("document.querySelector('.chooser input:checked').focus()")
    assert browser.ask(shown) == [True, False, False]
    browser.press("ArrowRight")
    assert browser.ask(shown) == [False, True, False]
    browser.press("ArrowLeft")
    assert browser.ask(shown) == [True, False, False]
    browser.ask("document.querySelector('.skip').focus()")
    browser.press("Enter")
    assert browser.ask("document.activeElement.id") == "report"


def test_files_are_legible_in_both_schemes(written: Path, browser: Browser) -> None:
    files = sorted(written.glob("*/*.svg"))
    assert len(files) > 15
    backs = set()
    for i, path in enumerate(files):
        browser.look(width=640, dark=bool(i % 2))
        browser.open(path.as_uri())
        assert browser.ask(CLIPPED) == [], path.name
        assert browser.complaints == []
        backs.add((bool(i % 2), browser.ask("getComputedStyle(document.querySelector('rect')).fill")))
    assert backs == {(False, "rgb(255, 255, 255)"), (True, "rgb(21, 25, 29)")}


def test_prints_and_pictures_are_made(written: Path, browser: Browser, tmp_path: Path) -> None:
    for kind in KINDS:
        browser.look(width=700, media="print")
        browser.open((written / f"{kind}.html").as_uri())
        assert browser.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
        assert browser.ask("document.scrollingElement.scrollWidth") <= 700
    browser.look(width=400)
    browser.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


CONTRAST = """
(() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== "rgba(0, 0, 0, 0)") return c; } return "rgb(255, 255, 255)"; };
  return [...document.querySelectorAll("p, td, th, a, summary, li, caption, label, legend, code, h1, h2, h3")]
    .filter(e => e.offsetParent !== null && e.textContent.trim() && !e.classList.contains("skip")).filter(e => {
      const [a, b] = [light(getComputedStyle(e).color), light(back(e))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5; }).map(e => e.textContent);
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out(dark: bool, written: Path, browser: Browser) -> None:
    browser.look(width=1280, dark=dark)
    browser.open((written / "comparison.html").as_uri())
    assert browser.ask(CONTRAST) == []


# ---------------------------------------------------------------- the text of the page
VOID = {"meta", "wbr", "input", "br", "img"}
LEAVES = {"rect", "line", "polyline", "polygon", "circle", "path"}
INSIDE = {"li": "ul", "tr": ("thead", "tbody"), "td": "tr", "th": "tr", "caption": "table", "summary": "details",
          "legend": "fieldset", "figcaption": "figure"}  # fmt: skip


class Strict(HTMLParser):
    """The rules of HTML that matter here: elements nest and are closed, ids are unique, references resolve."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.wanted: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        if len(set(names)) != len(names):
            self.wrong.append(f"attribute twice: {tag} {names}")
        parent = self.open[-1] if self.open else ""
        if tag in INSIDE and parent not in INSIDE[tag]:
            self.wrong.append(f"{tag} in {parent}")
        if parent == "p" and tag in {"p", "div", "table", "ul", "figure", "details", "pre"}:
            self.wrong.append(f"{tag} in p")
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
                self.wanted.append(str(value))
            if name == "href":
                self.wanted.append(str(value).removeprefix("#"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID | LEAVES:
            self.wrong.append(f"{tag} closes itself")
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"end of {tag}")


@pytest.mark.parametrize("kind", KINDS)
def test_pages_are_valid(kind: str, written: Path) -> None:
    text = (written / f"{kind}.html").read_text()
    found = Strict()
    found.feed(text)
    assert found.open == []
    assert found.wrong == []
    assert len(set(found.ids)) == len(found.ids)
    assert set(found.wanted) <= set(found.ids)
    assert "<script" not in text
    assert re.search(r'Content-Security-Policy" content="default-src &#x27;none&#x27;; style-src', text)
