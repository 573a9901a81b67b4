"""The slow twin of ``tests/waiting_strategy.py``: its waits are the yields of a generator."""

from __future__ import annotations

from collections.abc import Generator

from tests.reference.slow_crypt import Piece, Strategy
from tests.reference.slow_waiting import NEVER, Wait
from tracereplay.demand.stream import REQUIRED

STEPS, MAX_RUNS = 14, 60


def draw(number: int, step: int) -> int:
    return (number * 7919 + step * 104729 + number * step * 31) % 1009


class SlowWaiting(Strategy):
    """Modes as there."""

    runs = 0

    def __post_init__(self) -> None:
        if self.params["mode"] == "random":
            self.timers[1] = 700

    # ------------------------------------------------------------------ reserve and mutex
    def take(self) -> int | None:
        return self.pool.reserve.pop() if self.pool.reserve else None

    def put(self, cpu: int, frame: int) -> None:
        if len(self.pool.reserve) >= self.pool.minimum:
            self.machine.free(cpu, frame, 0)
        else:
            self.pool.reserve.append(frame)
            self.pool.idle_peak = max(self.pool.idle_peak, len(self.pool.reserve))
            self.woken.add("pool")

    def lock(self, number: int) -> bool:
        if self.mutex is None:
            self.mutex = number
            self.machine.count("mutex_acquisitions")
        return self.mutex == number

    def unlock(self) -> None:
        self.mutex = None
        self.woken.add("mutex")

    # ------------------------------------------------------------------ requests
    def serve(
        self, cpu: int, pages: int, order: int, gfp: int, flags: int
    ) -> Generator[Wait, None, list[Piece] | None]:
        assert not flags & REQUIRED
        if self.params["mode"] == "random":
            return (yield from self.at_random(cpu, pages, gfp))
        return (yield from self.from_reserve(pages))

    def from_reserve(self, pages: int) -> Generator[Wait, None, list[Piece] | None]:
        number = self.number
        blocks: list[Piece] = []
        if self.params["mode"] == "mutex":
            while not self.lock(number):
                yield "mutex", NEVER, 0
        while len(blocks) < pages:
            frame = self.take()
            if frame is None:
                yield "pool", self.clock.now + 5_000_000_000, len(blocks)
            else:
                blocks.append((frame, 0))
        if self.params["mode"] == "mutex":
            self.unlock()
        return blocks

    def at_random(self, cpu: int, pages: int, gfp: int) -> Generator[Wait, None, list[Piece] | None]:
        number = self.number
        blocks: list[Piece] = []
        step = 0
        locked = False

        def limit(long: bool) -> int:
            return NEVER if long else self.clock.now + 1 + draw(number, 77) * 20

        while sum(1 << order for _, order in blocks) < pages:
            d = draw(number, step) if step < STEPS else 9
            what = d % 10
            until = limit(d % 7 < 5)
            if what == 0:
                until = limit(False)
                while self.clock.now < until:
                    yield "time", until, len(blocks)
            elif what == 1 and not locked:
                locked = self.lock(number)
                while not locked and self.clock.now < until:
                    yield "mutex", until, len(blocks)
                    locked = self.lock(number)
            elif what == 2 and locked:
                self.unlock()
                locked = False
            elif what <= 5:
                frame = self.take()
                while frame is None and self.clock.now < until:
                    yield "pool", until, len(blocks)
                    frame = self.take()
                if frame is not None:
                    blocks.append((frame, 0))
            else:
                order = 1 if what == 6 else 0
                found = None if d == 666 else self.machine.alloc(cpu, order, gfp)
                if found is None:
                    for frame, order in blocks:
                        if order == 0 and frame % 2 == 0:
                            self.put(cpu, frame)
                        else:
                            self.machine.free(cpu, frame, order)
                    if locked:
                        self.unlock()
                    return None
                blocks.append((found, order))
            if what == 7:
                self.set_timer(d % 3, self.clock.now + d * 10)
            step += 1
        if locked:
            self.unlock()
        return blocks

    def release(self, cpu: int, block: Piece, flags: int) -> None:
        frame, order = block
        chance = self.params["mode"] == "random"
        if order == 0 and (not chance or frame % 2 == 0):
            self.put(cpu, frame)
            return
        self.machine.free(cpu, frame, order)
        if chance and frame % 16 == 1:
            self.set_timer(2, self.clock.now + frame % 900)

    # ------------------------------------------------------------------ the worker
    def set_timer(self, number: int, when: int) -> None:
        self.timers[number] = when

    def timer(self, number: int) -> None:
        self.runs += 1
        if len(self.pool.reserve) < self.pool.minimum:
            frame = self.machine.alloc(0, 0, 0x800)
            if frame is not None:
                self.put(0, frame)
        if number == 1 and self.runs < MAX_RUNS:
            self.set_timer(1, self.clock.now + 1500)

    def shrink(self, pages: int) -> None:
        for _ in range(min(pages, len(self.pool.reserve) // 2)):
            frame = self.take()
            assert frame is not None
            self.machine.free(0, frame, 0)

    def finish(self) -> None:
        frame = self.take() if self.params["mode"] == "random" else None
        if frame is not None:
            self.machine.free(0, frame, 0)
