"""Files of remote traces on this machine: fetched once, the least recently used traces removed when they take too much.

``TRACEREPLAY_CACHE_DIR/remote``, else ``~/.cache/tracereplay/remote``, holds a slot for each state of a remote trace:
a directory, named by a hash, that holds the bundle under its own name. A process that has the trace open holds a shared
lock on the slot; only slots that nobody holds are removed. So the bound (``TRACEREPLAY_REMOTE_CACHE``, 20 GiB) is kept
but for what is in use at the moment. Files appear by one rename; of several processes that want one, one fetches it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path

from tracereplay.compile_cache import cache_root
from tracereplay.errors import StorageError, UsageError
from tracereplay.trace.sizes import bytes_of

BOUND = "TRACEREPLAY_REMOTE_CACHE"
DEFAULT_BOUND = 20 << 30
RESCAN_S = 60.0
_LOCK = ".lock"
_DOOMED = ".doomed"
_room = threading.Lock()
_sizes: dict[Path, tuple[int, float]] = {}
"""Of a cache: its bytes, as far as this process knows, and when it looked."""
_CHOOSE = "set TRACEREPLAY_CACHE_DIR to a directory that can be written"


def bound() -> int:
    """Bytes that the cache may take. Raises UsageError for a setting that is no size."""
    text = os.environ.get(BOUND, "")
    found = bytes_of(text) if text else DEFAULT_BOUND
    if found is None:
        raise UsageError(f"{BOUND}={text}: no size", hint="for example 20GiB, 500M; 0 keeps nothing but what is in use")
    return found


def root() -> Path:
    """The directory of all slots. Raises StorageError where there is no place for one."""
    compiled = cache_root()
    if compiled is None:
        raise StorageError("no place for the files of remote traces: there is no home directory", hint=_CHOOSE)
    return compiled.with_name("remote")


class Slot:
    """A place for the files of one state of one remote trace. It stays while the object lives."""

    def __init__(self, key: str, name: str) -> None:
        """``key`` names the state, ``name`` the bundle. Raises StorageError."""
        self._directory = root() / key
        self.path = self._directory / name
        try:
            descriptor = self._hold()
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot use {self._directory}: {error.strerror}", hint=_CHOOSE) from None
        weakref.finalize(self, os.close, descriptor)

    def _hold(self) -> int:
        """Lock the slot; it may be removed by another process until that is done."""
        lock = self._directory / _LOCK
        while True:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EMFILE or not _more_files():
                    raise
                continue
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    os.utime(lock)
                    return descriptor
            os.close(descriptor)

    @contextlib.contextmanager
    def alone(self, name: str) -> Iterator[Path]:
        """A path to fetch file ``name`` to, while no other thread or process does. Raises StorageError."""
        target = self.path / name
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with (self._directory / f".{name.replace('/', '.')}.lock").open("a") as lock:
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX)
                yield temporary
        except OSError as error:
            raise StorageError(f"cannot write {target}: {error.strerror or error}", hint=_CHOOSE) from None
        finally:
            temporary.unlink(missing_ok=True)


def _more_files() -> bool:
    """Let this process open as many files as it may: a fleet of traces needs one each. False where it does already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return True


def make_room(needed: int) -> None:
    """Remove slots that nobody holds, the least recently used first, until ``needed`` more bytes fit the bound.

    Of a cache with room to spare the size is looked at every RESCAN_S only: it may hold many files.
    """
    most, place = bound(), root()
    with _room:
        total, at = _sizes.get(place, (0, -RESCAN_S))
        if total + needed > most or time.monotonic() - at >= RESCAN_S:
            total, at = _shrunk(place, most - needed), time.monotonic()
        _sizes[place] = (total + needed, at)


def _shrunk(place: Path, most: int) -> int:
    """Remove slots until at most so many bytes are left, if there are enough to be removed; bytes that are left."""
    slots = [(entry, _bytes(entry)) for entry in place.iterdir() if entry.is_dir()]
    total = sum(size for _, size in slots)
    for slot, size in sorted(slots, key=lambda item: _used(item[0])):
        if slot.name.endswith(_DOOMED):  # by a process that died over it
            shutil.rmtree(slot, ignore_errors=True)
            total -= size
        elif total > most and _removed(slot):
            total -= size
    return total


def _used(slot: Path) -> float:
    try:
        return (slot / _LOCK).stat().st_mtime
    except OSError:
        return 0.0


def _bytes(slot: Path) -> int:
    total = 0
    for path in slot.rglob("*"):
        with contextlib.suppress(OSError):  # removed meanwhile
            total += path.lstat().st_size
    return total


def _removed(slot: Path) -> bool:
    """Remove a slot, unless somebody holds it."""
    try:
        descriptor = os.open(slot / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        doomed = slot.with_name(f".{slot.name}.{uuid.uuid4().hex[:8]}{_DOOMED}")
        slot.rename(doomed)  # at once: whoever comes next makes it anew
        shutil.rmtree(doomed, ignore_errors=True)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
