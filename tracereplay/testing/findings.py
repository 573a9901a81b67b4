"""What a check finds: rules in words, findings with file and line, the verdict on a strategy."""

from __future__ import annotations

import dataclasses
import linecache
from dataclasses import dataclass
from typing import Any

from tracereplay.errors import StrategyError

RULES: dict[str, str] = {
    "declared": "the file can be loaded; its class, parameters and functions are what the contract asks for",
    "bounds": "every index lies inside its array, every order, list and frame exists",
    "status": "allocate returns DONE, FAIL or WAIT, and leaves the request's own words alone",
    "blocks": "what is given is what was asked for: blocks in use, held by nobody else, enough of them",
    "frees": "only blocks that the strategy holds are freed or put on lists, once, with their order",
    "leaks": "after all was freed, nothing but the declared reserve is kept, and that does not grow",
    "waits": "a request waits for something that can happen",
    "ends": "every call comes to an end",
    "raises": "nothing is raised or printed",
    "repeats": "two runs of the same demand count the same",
    "compiles": "Numba compiles it",
    "same": "compiled, it counts what it counts as plain Python",
}
"""What :func:`~tracereplay.testing.check_strategy` looks at, in that order."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule broken."""

    rule: str
    """Key of RULES."""
    message: str
    file: str | None = None
    line: int | None = None
    parameters: str = ""
    """The parameters that it needs, where not the defaults: ``depth=64``."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{where}{self.message}" + (f" (with {self.parameters})" if self.parameters else "")

    @property
    def source(self) -> str:
        """The line's text; empty when it is not known."""
        return linecache.getline(self.file, self.line).strip() if self.file and self.line else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says of a strategy."""

    strategy: str
    reference: str
    """``file:Name`` or ``module:Name``."""
    passed: tuple[str, ...]
    """Rules that were looked at and hold, as far as was tried."""
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no rule was found broken."""
        return not self.findings

    def raise_for_findings(self) -> None:
        """Raises StrategyError with the first finding, if there is one."""
        if self.findings:
            first = self.findings[0]
            raise StrategyError(
                f"strategy {self.strategy!r} breaks the rule {first.rule!r}: {first}",
                hint=f"see all of it: tracereplay strategies --check {self.reference}",
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"schema": 1} | dataclasses.asdict(self) | {"ok": self.ok}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Verdict:
        """The verdict of :meth:`to_json`."""
        findings = tuple(Finding(**f) for f in value["findings"])
        return Verdict(value["strategy"], value["reference"], tuple(value["passed"]), findings)
