"""WRITE bios of dm-crypt joined with the page allocations made for them.

dm-crypt takes a buffer for each write, or for each part of one that it cuts (``crypt_alloc_buffer``,
drivers/md/dm-crypt.c), encrypts into it, and sends it to the device below. Demand recognises the buffers among the page
allocations and matches them with the bios' parts (demand/bios.py); table ``io`` has when a bio was queued and when each
part of it was sent below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tracereplay.analysis.analysis import Answer
from tracereplay.analysis.derived import derived
from tracereplay.analysis.io_rows import device_column, io_rows, with_task
from tracereplay.demand.reconstruct import open_demand
from tracereplay.demand.stream import ALLOC, FIRST

if TYPE_CHECKING:
    from tracereplay.analysis.view import View
    from tracereplay.demand.bios import Part
    from tracereplay.demand.reconstruct import Reconstruction
    from tracereplay.demand.state import Array

NO_CRYPT = "no device of this trace is dm-crypt's, as far as remaps and tasks show"
_BUFFERS: dict[str, pl.DataType | type[pl.DataType]] = {
    "disk": pl.UInt32,
    "q_ns": pl.Int64,
    "start": pl.Int64,
    "first_ns": pl.Int64,
    "pages": pl.Int64,
    "allocations": pl.Int64,
    "orders": pl.List(pl.Int64),
    "pfn": pl.UInt64,
}
_TIMES = ("wait_ns", "alloc_ns", "after_ns", "q2d_ns")


def bio_pages_table(view: View, by: str) -> Answer:
    """``bytes bios parts allocations pages orders wait_ns alloc_ns after_ns q2d_ns alloc_share`` by size; of a bio or a
    part ``at_ns device sector comm`` too.

    Of a part: ``wait_ns`` from its bio's queueing to the first allocation, ``alloc_ns`` from there to the last one,
    ``after_ns`` from there until it was sent below (encryption), ``q2d_ns`` all of them. Of a bio: ``alloc_ns`` is the
    sum over its parts, ``q2d_ns`` until the last of them was sent below. ``by`` size: means over bios.
    ``orders``: allocations by order, for example ``5:8``, eight of order 5. A buffer of one block has no time from its
    first to its last allocation: events mark the end of an allocation.
    """
    stream = open_demand(view.trace)
    if not stream.layers.crypt:
        return Answer(_shown(_empty(), by), "nothing to match", {}, (NO_CRYPT,))
    parts = _timed(_with_bios(view, stream, _buffers(stream)))
    check = stream.feed.check
    account = {
        "writes": check.writes,
        "writes_matched": check.matched,
        "parts": check.parts,
        "parts_matched": check.matched_parts,
    }
    frame = parts if by == "part" else _of_bios(parts)
    method = "allocations matched with bios by size, first come first served"
    return Answer(_shown(device_column(view, frame), by), method, account)


# ---------------------------------------------------------------- buffers
def _buffers(stream: Reconstruction) -> pl.DataFrame:
    """The requests of dm-crypt that were matched, by the bio and the sector where their part begins."""
    found: list[tuple[object, ...]] = []
    frames = stream.info.recorded_frames

    def take(ops: Array, matches: list[tuple[int, Part]]) -> None:
        follows = np.append((ops["kind"] == ALLOC) & (ops["flags"] & FIRST == 0), False)
        ends = np.flatnonzero(~follows)
        for i, part in matches:
            end = int(ends[np.searchsorted(ends, i + 1)])
            last = int(ops["pfn"][end - 1]) % frames  # a frame may have two keys
            request = int(ops["ts_ns"][i]), int(ops["pages"][i]), end - i, ops["order"][i:end].tolist(), last
            found.append((part.dev, part.queued_ns, part.start, *request))

    stream.feed.check.told = take
    for _ in stream:
        pass
    return pl.DataFrame(found, schema=_BUFFERS, orient="row")


def _with_bios(view: View, stream: Reconstruction, buffers: pl.DataFrame) -> pl.DataFrame:
    """Buffers with their bio of the view, when its part was sent below, and when the last page was allocated."""
    bios = with_task(
        view, io_rows(view).filter(pl.col("disk").is_in(list(stream.layers.crypt)) & (pl.col("bytes") > 0))
    )
    names = ["id", "at_ns", "disk", "q_ns", "sector", "nr_sectors", "bytes", "comm"]
    upper = bios.select(names).with_columns(pl.col("sector", "nr_sectors").cast(pl.Int64)).collect(engine="streaming")
    joined = upper.join(buffers, on=["disk", "q_ns"]).filter(
        (pl.col("start") >= pl.col("sector")) & (pl.col("start") < pl.col("sector") + pl.col("nr_sectors"))
    )
    below = (
        derived(view.trace, "io")
        .filter(pl.col("parent_id").is_not_null())
        .select(
            pl.col("parent_id").alias("id"), pl.col("sector").cast(pl.Int64).alias("low"), pl.col("q_ns").alias("d_ns")
        )
        .join(upper.lazy().select("id"), on="id", how="semi")
        .collect(engine="streaming")
        .with_columns((pl.col("low") - pl.col("low").min().over("id")).alias("offset"))
        .drop("low")
    )
    joined = joined.with_columns((pl.col("start") - pl.col("sector")).alias("offset"))
    joined = joined.join(below, on=["id", "offset"], how="left", maintain_order="left")
    allocations = (
        view.trace.page_events.filter(pl.col("kind").cast(pl.String) == "alloc")
        .select("pfn", pl.col("ts_ns").alias("last_ns"))
        .join(joined.lazy().select("pfn").unique(), on="pfn", how="semi")
        .collect(engine="streaming")
        .sort("last_ns")
    )
    return joined.sort("first_ns").join_asof(
        allocations,
        left_on="first_ns",
        right_on="last_ns",
        by="pfn",
        strategy="forward",
        coalesce=False,
        check_sortedness=False,
    )


def _timed(parts: pl.DataFrame) -> pl.DataFrame:
    """Parts with their times."""
    return parts.with_columns(
        (pl.col("first_ns") - pl.col("q_ns")).alias("wait_ns"),
        (pl.col("last_ns") - pl.col("first_ns")).alias("alloc_ns"),
        (pl.col("d_ns") - pl.col("last_ns")).alias("after_ns"),
        (pl.col("d_ns") - pl.col("q_ns")).alias("q2d_ns"),
        pl.lit(1, pl.Int64).alias("parts"),
        pl.lit(1, pl.Int64).alias("bios"),
    ).sort("q_ns", "start")


def _of_bios(parts: pl.DataFrame) -> pl.DataFrame:
    """Bios with the sums of their parts."""
    return parts.group_by("id", maintain_order=True).agg(
        pl.col("at_ns", "disk", "sector", "bytes", "comm", "bios").first(),
        pl.col("parts", "allocations", "pages", "alloc_ns", "after_ns").sum(),
        pl.col("orders").explode(),
        pl.col("wait_ns").min(),
        pl.col("q2d_ns").max(),
    )


# ---------------------------------------------------------------- rows
def _shown(frame: pl.DataFrame, by: str) -> pl.DataFrame:
    share = (pl.col("alloc_ns") / pl.col("q2d_ns")).alias("alloc_share")
    counts = ("parts", "allocations", "pages")
    if by == "size":
        frame = frame.group_by("bytes").agg(
            pl.col("bios").sum(),
            *(pl.col(n).mean() for n in counts),
            pl.col("orders").explode(),
            *(pl.col(n).mean().round().cast(pl.Int64) for n in _TIMES),
        )
        frame = frame.sort("bytes")
        lead = ["bytes", "bios"]
    else:
        frame = frame.with_columns(pl.col("start").alias("sector")) if by == "part" else frame
        lead = ["at_ns", "device", "sector", "bytes", "comm"]
    told = pl.Series("orders", [_orders(o) for o in frame["orders"].to_list()], pl.String)
    return frame.with_columns(told).select(*lead, *counts, "orders", *_TIMES, share)


def _orders(orders: list[int]) -> str:
    values, counts = np.unique(np.array(orders, np.int64), return_counts=True)
    return " ".join(f"{order}:{n}" for order, n in zip(values.tolist(), counts.tolist(), strict=True))


def _empty() -> pl.DataFrame:
    whole = {"at_ns", "disk", "sector", "bytes", "bios", "parts", "start", *_TIMES}
    return pl.DataFrame(schema={**_BUFFERS, **dict.fromkeys(whole, pl.Int64), "device": pl.String, "comm": pl.String})
