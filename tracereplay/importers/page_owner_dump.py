"""A page_owner dump as a conversion: an allocation for each page that was live, in the order of time.

The dump is in the order of frames. Pages are sorted in runs, the runs go to a temporary file, and their merge is what
is written: memory does not grow with the host.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracereplay.errors import ImportFormatError
from tracereplay.importers.base import ImportOptions, ImportSummary
from tracereplay.importers.page_owner_pages import (
    MIGRATETYPES,
    NO_PID,
    NO_STACK,
    NULL_TYPE,
    PAGE,
    PageReader,
    frames_of,
)
from tracereplay.importers.rejects import first_text
from tracereplay.importers.source import DAMAGED
from tracereplay.kernel.gfp import gfp_table
from tracereplay.trace.columns import kind_dictionary
from tracereplay.trace.metadata import TraceMetadata
from tracereplay.trace.schema import PAGE_KINDS, STACKS, TASKS

if TYPE_CHECKING:
    from tracereplay.importers.source import Source

ALLOC, FREE = "kmem:mm_page_alloc", "kmem:mm_page_free"
_ALLOC = PAGE_KINDS.index("alloc")
Pages = npt.NDArray[Any]


class PageOwnerConversion:
    """Imports one dump."""

    def __init__(self, source: Source, options: ImportOptions, advance: Callable[[int], None]) -> None:
        self.metadata = TraceMetadata()
        self.summary = ImportSummary()
        self._source, self._options, self._advance = source, options, advance
        self._reader = PageReader()

    def batches(self) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Rows of ``page_events``, ``tasks`` and ``stacks``.

        Raises ImportFormatError: compressed data cut short or damaged, a bad block with ``strict``, no page at all.
        """
        reader = self._reader
        with tempfile.TemporaryFile() as file:
            lengths = []
            try:
                with self._source.open(self._advance) as stream:
                    for run in reader.runs(stream, self._options.reorder_rows):
                        self._check_strict()
                        file.write(run[np.argsort(run["ts_ns"], kind="stable")].tobytes())
                        lengths.append(run.size)
            except DAMAGED as error:
                raise ImportFormatError(
                    f"{self._source.name} cannot be read to its end: {error}",
                    hint="the file is cut short or damaged: copy it again from where it was made",
                ) from error
            self._check_strict()
            self._check_pages()
            first = last = None
            for pages in merged(file, lengths, self._options.reorder_rows):
                first = int(pages["ts_ns"][0]) if first is None else first
                last = int(pages["ts_ns"][-1])
                yield "page_events", _page_batch(pages)
        self.summary.first_ns, self.summary.last_ns = first, last
        self._finish()
        if reader.tasks:
            yield "tasks", self._task_batch()
        stacks = self._stack_batch()
        if stacks.num_rows:
            yield "stacks", stacks

    # ------------------------------------------------------------ checks
    def _check_strict(self) -> None:
        self._reader.rejects.check_strict(self._options.strict, self._source.name, "pages")

    def _check_pages(self) -> None:
        reader = self._reader
        if not reader.pages:
            refused = (
                f" ({reader.rejects.count} refused; {first_text(reader.rejects.samples())})"
                if reader.rejects.count
                else ""
            )
            raise ImportFormatError(
                f"{self._source.name} holds no page{refused}",
                hint="boot with page_owner=on (CONFIG_PAGE_OWNER), and read /sys/kernel/debug/page_owner",
            )

    # ------------------------------------------------------------ end
    def _finish(self) -> None:
        reader, meta, summary = self._reader, self.metadata, self.summary
        summary.events = {ALLOC: reader.pages}
        summary.lines, summary.rejected, summary.samples = reader.lines, reader.rejects.count, reader.rejects.samples()
        summary.tasks, summary.stacks = len(reader.tasks), len(reader.stacks)
        # The dump says of every page in it that it has not been freed: frees are known, and there are none.
        meta.events = [ALLOC, FREE]
        meta.clock = {"name": self._options.clock or "perf", "resolution_ns": 1}  # local_clock()
        meta.source = {
            "kind": "import",
            "format": "page_owner",
            "snapshot": True,
            **self._source.facts(),
            "lines": reader.lines,
        }
        if self._options.release:
            meta.host["release"] = self._options.release
        meta.gfp_flags = dict(gfp_table(self._options.release))
        meta.migratetypes = list(MIGRATETYPES)
        meta.rejected = reader.rejects.metadata()
        meta.notes.append(
            "a snapshot: the pages that were live when page_owner was read, each with its allocation; what was freed "
            "before is not in it, so rates are those of survivors, and every lifetime is cut at the last allocation"
        )
        meta.notes.append("page_owner does not tell the CPU: cpu is 0 in every row")
        if reader.untimed:
            meta.notes.append(f"{reader.untimed:,} pages have no time (kernels before 5.11): they stand at 0")
        if reader.migrated:
            meta.notes.append(f"{reader.migrated:,} pages have been migrated: their frame is the one they have now")
        if not self._options.release:
            meta.notes.append(
                "the dump does not name its kernel: gfp names are those of the newest one known (--kernel)"
            )
        other = sum(task.memcgs.total() - max(task.memcgs.values(), default=0) for task in reader.tasks.values())
        if other:
            meta.notes.append(f"{other:,} pages are charged to another memory cgroup than most pages of their task")
        summary.notes = meta.notes

    def _task_batch(self) -> pa.RecordBatch:
        """Rows of ``tasks``: one per pid and name, with the memory cgroup that most of its pages are charged to."""
        tasks = self._reader.tasks
        columns: dict[str, list[Any]] = {
            "pid": [pid for pid, _ in tasks],
            "tgid": [t.tgid for t in tasks.values()],
            "comm": [None if comm is None else comm.decode("utf-8", "backslashreplace") for _, comm in tasks],
            "cgroup": [_most(t.memcgs) for t in tasks.values()],
            "first_ns": [t.first_ns for t in tasks.values()],
            "last_ns": [t.last_ns for t in tasks.values()],
        }
        return pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in TASKS], schema=TASKS)

    def _stack_batch(self) -> pa.RecordBatch:
        """Rows of ``stacks``."""
        rows = [
            (number, depth, address, name, offset, module)
            for stack, number in self._reader.stacks.items()
            for depth, (address, name, offset, module) in enumerate(frames_of(stack))
        ]
        columns = ("stack_id", "depth", "address", "symbol", "offset", "module")
        arrays = [
            pa.array(
                [row[columns.index(f.name)] for row in rows],
                pa.string() if pa.types.is_dictionary(f.type) else f.type,
            ).cast(f.type)
            for f in STACKS
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=STACKS)


def _most(memcgs: Any) -> str | None:
    return memcgs.most_common(1)[0][0].decode("utf-8", "backslashreplace") if memcgs else None


def merged(file: IO[bytes], lengths: list[int], rows: int) -> Iterator[Pages]:
    """Sorted runs, one behind the other in a file, as one sorted sequence in pieces of up to about ``rows``."""
    file.flush()
    step = max(1, rows // max(1, len(lengths)))
    ends = np.cumsum([0, *lengths]).tolist()
    place = ends[:-1]
    while True:
        parts = []
        for run, end in zip(place, ends[1:], strict=True):
            n = min(step, end - run)
            file.seek(run * PAGE.itemsize)
            parts.append(np.frombuffer(file.read(n * PAGE.itemsize), PAGE))
        # Up to the first piece's last time nothing can come after what is read here, but rows of that same time.
        limits = [
            p["ts_ns"][-1] for p, run, end in zip(parts, place, ends[1:], strict=True) if p.size and run + p.size < end
        ]
        limit = min(limits) if limits else np.iinfo(np.int64).max
        taken = [p[: np.searchsorted(p["ts_ns"], limit, side="right")] for p in parts]
        place = [run + t.size for run, t in zip(place, taken, strict=True)]
        piece = np.concatenate(taken) if taken else np.empty(0, PAGE)
        if not piece.size:
            return
        yield piece[np.argsort(piece["ts_ns"], kind="stable")]


def _page_batch(pages: Pages) -> pa.RecordBatch:
    columns = {
        "ts_ns": pa.array(pages["ts_ns"]),
        "cpu": pa.array(np.zeros(pages.size, np.uint16)),
        "kind": pa.DictionaryArray.from_arrays(
            pa.array(np.full(pages.size, _ALLOC, np.int8)), kind_dictionary("page_events")
        ),
        "pfn": pa.array(pages["pfn"]),
        "order": pa.array(pages["order"]),
        "gfp": pa.array(pages["gfp"]),
        "migratetype": pa.array(pages["type"], mask=pages["type"] == NULL_TYPE),
        "pid": pa.array(pages["pid"], mask=pages["pid"] == NO_PID),
        "stack_id": pa.array(pages["stack_id"], mask=pages["stack_id"] == NO_STACK),
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
