"""Tables of sweeps, made by hand, as ``whatif`` writes them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

Cost = Callable[[Mapping[str, Any]], float | str | None]
"""Of a page at a setting; a text is the error of a point that failed, None a point that was not run."""
HOSTILE = "<script>alert('x')</script> & \"co\""


def sweep_frame(axes: Mapping[str, Sequence[Any]], costs: Mapping[str, Cost], **more: Any) -> pl.DataFrame:
    """A point for each strategy and setting; intervals are a tenth to either side. ``more``: other columns."""
    rows = []
    for values in itertools.product(*axes.values()):
        setting = dict(zip(axes, values, strict=True))
        for label, cost in costs.items():
            found = cost(setting)
            if found is None:
                continue
            failed = isinstance(found, str)
            value = None if isinstance(found, str) else float(found)
            rows.append(
                {
                    "key": f"{label}{values}",
                    "status": "failed" if failed else "ok",
                    "error": found if failed else None,
                    "method": "replay",
                    "trace": "web.trace",
                    "trace_id": "0123",
                    "host": "lab",
                    "kernel": "6.12.1",
                    "label": label,
                    "strategy": label,
                    **setting,
                    "profile": "brouer-2021",
                    "seed": 0,
                    "unit": None if failed else "ns",
                    "requests": 10,
                    "pages": 2560,
                    "failed": 0,
                    "waiting": 0,
                    "lost": 0,
                    "target": "batches",
                    "per_page": value,
                    "per_page_low95": None if value is None else 0.9 * value,
                    "per_page_high95": None if value is None else 1.1 * value,
                    "zone_lock_acquisitions": None if failed else 7,
                    "machine": json.dumps({"cpus": 4, "generation": "6.12"}),
                    "sample": None,
                    "version": "0.1.0",
                    "command": "tracereplay whatif web.trace -s bulk",
                    **more,
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None)


def crossing_sweep() -> pl.DataFrame:
    """Bulk's cost falls along pcp.batch from 80 to 10, compound's stays at 40; one point fails, one was not run."""

    def bulk(at: Mapping[str, Any]) -> float | str | None:
        if at["copies"] == 4 and at["pcp.batch"] == 8:
            return f"out of memory {HOSTILE}"
        return 80.0 - 70.0 * (at["pcp.batch"] - 8) / 120

    def compound(at: Mapping[str, Any]) -> float | None:
        return None if at["copies"] == 2 and at["pcp.batch"] == 128 else 40.0

    return sweep_frame({"pcp.batch": [8, 32, 64, 128], "copies": [1, 2, 4]}, {"bulk": bulk, HOSTILE: compound})


def write_sweep(path: Path, frame: pl.DataFrame, axes: Sequence[str]) -> None:
    """The file of a sweep."""
    values = {name: [str(v) for v in dict.fromkeys(frame[name].to_list())] for name in axes}
    told = {
        "tracereplay.sweep": "1",
        "tracereplay.axes": json.dumps(values),
        "tracereplay.command": "tracereplay whatif",
    }
    frame.write_parquet(path, metadata=told)
