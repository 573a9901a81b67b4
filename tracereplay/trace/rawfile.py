"""A capture kept as it comes: the collector's frames into one file, to be converted later and elsewhere.

Nothing is decoded but the few JSON frames on the way, so a capture costs this side next to nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

from tracereplay.errors import CaptureError, CollectorError, OutputExistsError, StorageError, UsageError
from tracereplay.trace import frames
from tracereplay.trace.accounts import named_error
from tracereplay.trace.ahead import ahead
from tracereplay.trace.frames import FRAME_HEADER, FRAME_MARKER, STREAM_HEADER, Message
from tracereplay.trace.partwriter import storage
from tracereplay.trace.progress import Progress, counted_kinds
from tracereplay.trace.recording import CaptureSummary

CHUNK_BYTES = 1 << 20
CHUNKS_AHEAD = 64
"""What may wait while the disk is busy; after that the pipe fills, and then the rings."""
FREE_LOOK_BYTES = 64 << 20
"""How often, in bytes written, the free space is looked at."""
LOST_COUNTERS = ("full", "lock", "no_ring")
FTRACE_LOST_COUNTERS = ("overrun", "commit overrun", "dropped events")

_LOOKED_AT = (frames.HELLO, frames.STATUS, frames.CLOSING, frames.ERROR)


class FrameWatch:
    """Follows a stream that passes by in pieces of any size, and picks out the frames that tell its state."""

    def __init__(self) -> None:
        self.at = 0
        """Byte of the stream up to which it was followed."""
        self.messages = 0
        """HELLO, STATUS, CLOSING and ERROR frames so far."""
        self._part = bytearray()
        self._wanted = STREAM_HEADER.size
        self._skip = 0
        self._kind: int | None = None
        """Type of the frame whose payload is being gathered; None: a header is."""
        self._mono_ns = 0
        self._began = False

    def feed(self, data: memoryview) -> Iterator[Message]:
        """The messages that end in the next piece. Raises CollectorError where the stream is none."""
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
            else:
                step = min(self._wanted - len(self._part), len(data) - at)
                self._part += data[at : at + step]
            at += step
            self.at += step
            while not self._skip and len(self._part) == self._wanted:
                message = self._next()
                if message is not None:
                    self.messages += 1
                    yield message

    def _next(self) -> Message | None:
        """Use the part that is complete."""
        part, self._part = bytes(self._part), bytearray()
        kind, self._kind = self._kind, None
        self._wanted = FRAME_HEADER.size
        if kind is not None:
            return self._message(kind, part)
        if not self._began:
            self._began = True
            frames.check_stream_header(part)
            return None
        marker, kind, _, _, length, self._mono_ns, _ = FRAME_HEADER.unpack(part)
        if marker != FRAME_MARKER or length > frames.MAX_BATCH_BYTES:
            at = self.at - FRAME_HEADER.size
            raise CollectorError(
                f"the collector's stream is broken at byte {at}: no frame there",
                hint="something else wrote into the stream; keep the collector's stdout for frames only",
            )
        if kind in _LOOKED_AT and length <= frames.MAX_JSON_BYTES:
            self._kind, self._wanted = kind, length
        else:
            self._skip = length
        return None

    def _message(self, kind: int, payload: bytes) -> Message | None:
        try:
            value = json.loads(payload)
        except ValueError:
            return None  # the conversion says so, with the place
        return Message(kind, self._mono_ns, value) if isinstance(value, dict) else None


def read_chunks(fd: int) -> Generator[memoryview, None, None]:
    """The bytes of a stream as they come, read on a thread of their own."""

    def chunks() -> Iterator[memoryview]:
        while data := os.read(fd, CHUNK_BYTES):
            yield memoryview(data)

    return ahead(chunks(), CHUNKS_AHEAD, "frames", drain_s=frames.ABANDON_S)


class RawRecording:
    """Writes one stream to a file. The counterpart of Recording, which decodes it.

    The file appears with the collector's hello, so a capture that cannot start leaves nothing. The capture is
    asked to stop when the file has reached ``max_bytes`` or the disk has less than ``min_free_bytes`` left (0: no
    limit).

    Raises OutputExistsError when the file is there and ``force`` is not set, UsageError when ``force`` would
    replace what is no recording of frames.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        force: bool = False,
        max_bytes: int = 0,
        min_free_bytes: int = 0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.path = Path(path).absolute()
        self._force = force
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._on_progress = on_progress
        self._stop: Callable[[], None] = lambda: None
        self._on_started: Callable[[], None] = lambda: None
        self._file: int | None = None
        self._waiting: list[memoryview] = []
        """What came before the hello was whole."""
        self._watch = FrameWatch()
        self._bytes = 0
        self._looked_at = 0
        self._tables: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._probes: list[Mapping[str, Any]] = []
        self._started_ns = 0
        self._closing: Message | None = None
        self._ended_for = ""
        if self.path.is_symlink() or self.path.exists():
            if not force:
                raise OutputExistsError(path)
            _refuse_stranger(self.path)

    def attach(self, *, stop: Callable[[], None], on_started: Callable[[], None]) -> None:
        """How to ask the collector to stop, and what to do when its gate has opened."""
        self._stop = stop
        self._on_started = on_started

    def run(self, chunks: Iterator[memoryview]) -> CaptureSummary:
        """Take the stream to its end and store it, flushed to the disk.

        Raises the error that an ERROR frame names, CollectorError for a stream that is none or ends early (what
        came stays), StorageError when the disk refuses (what was written stays).
        """
        failure: CaptureError | None = None
        for chunk in chunks:
            if failure is None:
                try:
                    for message in self._watch.feed(chunk):
                        self._take(message)
                except CaptureError as error:  # the rest of the stream is stored all the same
                    failure = error
                except (AttributeError, LookupError, TypeError, ValueError) as error:
                    failure = CollectorError(f"a frame before byte {self._watch.at} is damaged: {error!r}")
                if failure is not None:
                    self._waiting.clear()
            self._write(chunk, waits=failure is None)
        self._flush()
        if failure is not None:
            raise failure
        if self._closing is None:
            raise CollectorError(
                f"the collector's stream ended at byte {self._watch.at}, without its closing frame",
                hint=f"the collector died or its host went away; what came is kept: tracereplay import {self.path} OUT",
            )
        return self._summary(self._closing.value)

    def give_up(self) -> None:
        """Keep what was written; a file without a single event's frame behind the hello is removed."""
        with contextlib.suppress(StorageError):
            self._flush()
        if self._file is not None:
            os.close(self._file)
            self._file = None
            if not self._started_ns:
                self.path.unlink(missing_ok=True)

    # ------------------------------------------------------------ frames
    def _take(self, message: Message) -> None:
        value = message.value
        if message.type == frames.HELLO:
            rings = value.get("rings")
            if isinstance(rings, list):
                self._tables = {str(r.get("name")): str(r.get("table")) for r in rings if isinstance(r, dict)}
            self._missing = dict(value.get("missing") or {})
            self._probes = [p for p in value.get("probes") or () if isinstance(p, dict) and "kind" in p]
            self._create()
        elif message.type == frames.ERROR:
            raise named_error(value)
        elif message.type == frames.CLOSING:
            self._closing = message
        elif value.get("event") == "started":
            self._started_ns = int(value.get("started_ns", message.mono_ns))
            self._on_started()
        elif message.type == frames.STATUS and value.get("event") == "stopped":
            return
        if message.type == frames.STATUS and self._started_ns and self._on_progress is not None:
            events, lost = self._totals(value)
            self._on_progress(
                Progress(
                    (message.mono_ns - self._started_ns) / 1e9,
                    sum(events.values()),
                    lost,
                    kinds=counted_kinds(value.get("counters") or {}, self._probes),
                    bytes_written=self._bytes,
                    cost=value.get("cost") or {},
                )
            )

    def _totals(self, value: Mapping[str, Any]) -> tuple[dict[str, int], int]:
        """Events recorded by table, and events lost, by the kernel's own counters."""
        events: dict[str, int] = {}
        lost = 0
        for ring, of_ring in dict(value.get("counters") or {}).items():
            table = self._tables.get(str(ring), str(ring))
            for counted in (c for of_cpu in of_ring.values() for c in of_cpu.values()):
                gone = sum(int(counted.get(name, 0)) for name in LOST_COUNTERS)
                events[table] = events.get(table, 0) + int(counted.get("seq", 0)) - gone
                lost += gone
        events = {table: n for table, n in events.items() if table.endswith("_events")}
        if cpus := dict(value.get("ftrace") or {}).values():  # a tracefs instance counts all its events together
            events["events"] = sum(int(of_cpu.get("read events", 0)) for of_cpu in cpus)
            lost += sum(int(of_cpu.get(name, 0)) for of_cpu in cpus for name in FTRACE_LOST_COUNTERS)
        return events, lost

    # ------------------------------------------------------------ the file
    def _create(self) -> None:
        with storage(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._force:
                self.path.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                self._file = os.open(self.path, flags, 0o644)
            except FileExistsError:
                raise OutputExistsError(self.path) from None
        for chunk in self._waiting:
            self._store(chunk)
        self._waiting.clear()

    def _write(self, chunk: memoryview, *, waits: bool) -> None:
        if self._file is None:
            if waits:
                self._waiting.append(chunk)
            return
        self._store(chunk)
        if self._max_bytes and self._bytes >= self._max_bytes:
            self._end_for("size limit reached")
        if self._bytes - self._looked_at >= FREE_LOOK_BYTES:
            self._looked_at = self._bytes
            if self._min_free_bytes and shutil.disk_usage(self.path).free < self._min_free_bytes:
                self._end_for("disk nearly full")

    def _end_for(self, reason: str) -> None:
        if not self._ended_for:
            self._ended_for = reason
            self._stop()

    def _store(self, chunk: memoryview) -> None:
        assert self._file is not None
        with storage(self.path):
            while chunk:
                written = os.write(self._file, chunk)
                chunk = chunk[written:]
                self._bytes += written

    def _flush(self) -> None:
        if self._file is not None:
            with storage(self.path):
                os.fsync(self._file)

    def _summary(self, closing: Mapping[str, Any]) -> CaptureSummary:
        assert self._file is not None
        os.close(self._file)
        self._file = None
        try:
            started, stopped = int(closing["started_ns"]), int(closing["stopped_ns"])
            events, lost = self._totals(closing)
            for facts in dict(closing.get("programs") or {}).values():
                lost += int(facts.get("lost") or 0)
            cost = dict(closing.get("cost") or {})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CollectorError(f"the collector's closing frame is damaged: {error!r}") from None
        return CaptureSummary(
            path=self.path,
            duration_s=(stopped - started) / 1e9,
            events=events,
            lost=lost,
            bytes_on_disk=self._bytes,
            reason=self._ended_for or str(closing.get("reason")),
            missing=self._missing,
            self_cost={
                "collector_cpu_seconds": cost.get("cpu_seconds"),
                "collector_max_rss_bytes": cost.get("max_rss_bytes"),
            },
        )


def _refuse_stranger(path: Path) -> None:
    """--force replaces a recording of frames, and never anything else."""
    if path.is_file() and not path.is_symlink():
        with storage(path), path.open("rb") as file:
            if file.read(len(frames.MAGIC)) in (frames.MAGIC, b""):
                return
    raise UsageError(
        f"{path} is not a recording of raw frames; --force does not replace it",
        hint="choose another path, or remove it yourself",
    )
