"""The case study's page: its marked parts and pictures, from stored counters and the shipped prices."""

from __future__ import annotations

from collections.abc import Mapping

from tracereplay.casestudy.figures import pictures
from tracereplay.casestudy.findings import FINDINGS, agreement
from tracereplay.casestudy.kernels import as_measured, as_measured_fragmented, in_short
from tracereplay.casestudy.run import unpacked
from tracereplay.casestudy.study import Study
from tracereplay.casestudy.tables import TABLES, compared, crossings_compared
from tracereplay.cost.profile import DEFAULT_PROFILE, Profile, load_profile, shipped_profiles
from tracereplay.errors import UsageError

LEFT_OUT = ("brouer-2021-list",)
"""Profiles that say nothing here: the list form of bulk calls is gone."""


def other_prices() -> list[Profile]:
    """The profiles under which the comparison is repeated, the page's own first."""
    names = [DEFAULT_PROFILE, *(n for n in shipped_profiles() if n not in (DEFAULT_PROFILE, *LEFT_OUT))]
    return [load_profile(name) for name in names]


def made(stored: str) -> tuple[dict[str, str], dict[str, str]]:
    """Marked parts of the page by name, and pictures by file name."""
    study, profiles = Study(unpacked(stored)), other_prices()
    parts = {name: write(study, profiles[0]) for name, write in {**TABLES, **FINDINGS}.items()}
    parts["by-profile"] = compared(study, profiles)
    parts["crossings-by-profile"] = crossings_compared(study, profiles)
    parts["kernels"] = as_measured(study)
    parts["kernels-fragmented"] = as_measured_fragmented(study)
    parts["kernels-in-short"] = in_short(study)
    parts["agreement"] = agreement(study, profiles)
    return parts, pictures(study, profiles[0], profiles)


def renewed(page: str, parts: Mapping[str, str]) -> str:
    """The page with its marked parts exchanged. Raises UsageError where one has no place."""
    for name, text in parts.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise UsageError(f"the page has no lines {begin} and {end}", hint="put them where that part goes")
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page
