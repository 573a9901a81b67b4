"""Run an iterator on a thread of its own, a few items ahead of its consumer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

T = TypeVar("T")


class _End:
    """What the thread sends last: its error, or none."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def ahead(source: Iterable[T], depth: int, name: str, *, drain_s: float | None = None) -> Generator[T, None, None]:
    """The items of ``source``, made on a thread ``name`` that stays at most ``depth`` items ahead.

    Its errors are raised here. When the consumer stops early the thread ends after the item in hand; with ``drain_s``
    it goes on to the source's end, unheard, and is waited for that many seconds.
    """
    waiting: queue.Queue[T | _End] = queue.Queue(depth)
    abandoned = threading.Event()

    def put(item: T | _End) -> bool:
        while not abandoned.is_set():
            try:
                waiting.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def run() -> None:
        try:
            for item in source:
                if not put(item) and drain_s is None:
                    return
        except BaseException as error:  # handed to the other thread, whatever it is
            put(_End(error))
        else:
            put(_End(None))

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        abandoned.set()
        thread.join(drain_s)
