"""The scenarios by name."""

from __future__ import annotations

from tracereplay.errors import UsageError, nearest
from tracereplay.scenarios import crypt, placement, rcu
from tracereplay.scenarios.scenario import Scenario

SCENARIOS = {s.name: s for s in (*crypt.SCENARIOS, *placement.SCENARIOS, *rcu.SCENARIOS)}
"""In the order of their letters."""


def find_scenario(name: str) -> Scenario:
    """A scenario by its name or letter. Raises UsageError with the nearest name."""
    by_letter = {s.letter: s for s in SCENARIOS.values()}
    found = SCENARIOS.get(name) or by_letter.get(name)
    if found is None:
        guess = nearest(name, list(SCENARIOS))
        raise UsageError(
            f"no scenario is called {name!r}",
            hint=(f"did you mean {guess!r}? " if guess else "") + "`tracereplay scenarios` lists them",
        )
    return found
