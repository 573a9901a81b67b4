"""Reading stored results of ``tracereplay replay``."""

from __future__ import annotations

import json
from typing import Any

from tracereplay.errors import ResultsError
from tracereplay.trace.outputs import read_bytes
from tracereplay.trace.store import Place

RESULTS_SCHEMA = 1
_PARTS = {"trace": dict, "machine": dict, "demand": dict, "accounting": dict, "results": list}


def load_results(path: Place) -> dict[str, Any]:
    """The result object in a JSON file, by path or URL.

    Raises :class:`ResultsError`: not readable, not JSON, no results, or written by a newer tracereplay.
    """
    try:
        data = json.loads(read_bytes(path))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ResultsError(
            f"{path}: not readable as JSON: {error}",
            hint="results come from: tracereplay replay TRACE -s bulk -o results.json",
        ) from None
    return check_results(data, str(path))


def check_results(data: Any, where: str = "result") -> dict[str, Any]:
    """The same object, when it has the shape of a result (architecture.md section 5). Raises ResultsError."""
    hint = "results come from: tracereplay replay TRACE -s bulk -o results.json"
    if not isinstance(data, dict) or not isinstance(data.get("schema"), int) or "results" not in data:
        raise ResultsError(f"{where}: holds no results of a replay", hint=hint)
    if data["schema"] > RESULTS_SCHEMA:
        raise ResultsError(
            f"{where}: written by a newer tracereplay (results schema {data['schema']}, known: {RESULTS_SCHEMA})",
            hint="upgrade tracereplay, or run the replay again with this one",
        )
    for part, kind in _PARTS.items():
        if not isinstance(data.get(part), kind):
            raise ResultsError(f"{where}: no {part!r} in it", hint=hint)
    for row in data["results"]:
        if not isinstance(row, dict) or not {"strategy", "counters", "cost"} <= row.keys():
            raise ResultsError(f"{where}: a result without strategy, counters or cost", hint=hint)
    return data
