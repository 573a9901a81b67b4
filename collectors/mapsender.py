# SPDX-License-Identifier: GPL-2.0-only
"""The page map on its way out: a part at a time between drains, and what could not be read."""

from __future__ import annotations

import time

from collectors.output import Output
from collectors.pagemap import MAP_AFTER_STOP_NS, PageMapReader
from collectors.protocol import FrameType, json_frame


class MapSender:
    """Sends PAGE_MAP frames for as long as ``reading``."""

    def __init__(self, output: Output, *, wanted: bool) -> None:
        self._output = output
        self._map = PageMapReader() if wanted else None

    @property
    def reading(self) -> bool:
        """Whether there is more of the map."""
        return self._map is not None and not self._map.done

    def step(self) -> None:
        """Send the next part, and when it is over what could not be read."""
        if self._map is not None and not self._map.done:
            self._output.send(self._map.step())
            self._tell_error()

    def finish(self, stopped_ns: int) -> None:
        """After a short capture: the rest of the map shows the host as the events left it. What takes too long is
        given up."""
        while self.reading and time.monotonic_ns() < stopped_ns + MAP_AFTER_STOP_NS:
            self.step()
        if self._map is not None and not self._map.done:
            self._map.close()
            self._tell_error()

    def _tell_error(self) -> None:
        assert self._map is not None
        if self._map.done and self._map.error:
            value = {"phase": "start", "files": {}, "errors": {"page map": self._map.error}}
            self._output.send([json_frame(FrameType.SNAPSHOT, value, mono_ns=time.monotonic_ns())])
