"""Hopping windows in event time: windows of one length that begin every ``hop_s`` seconds, and overlap. Pure.

The readings are added to panes, which are tumbling windows of ``hop_s``. A window is the sum of its panes, so a
reading is added once, however many windows contain it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ingest.site import ALLOWED_LATENESS_S
from stream.sense.windows import Column, EventTimeWindows, ReadingWindow, TumblingWindows

_EVALUATED_NS = round(ALLOWED_LATENESS_S * 1e9)


class HoppingWindows(EventTimeWindows):
    """The windows ``[k·hop - length, k·hop)`` that have at least one reading.

    A window without a reading in its last pane is returned with the next pane that closes.
    """

    def __init__(self, length_s: float, hop_s: float, lateness_s: float = ALLOWED_LATENESS_S) -> None:
        super().__init__(hop_s, lateness_s)
        self._panes = TumblingWindows(hop_s, lateness_s)
        self._hop_ns = self._length_ns
        self._length_ns = self._hop_ns * round(length_s / hop_s)
        self._closed: dict[int, ReadingWindow] = {}
        """The closed panes of the last ``length_s``, by their beginning, in order."""
        self._pending: set[int] = set()
        """Ends of the windows that have new readings and that ``due`` has not returned yet."""

    def begin_epoch(self) -> None:
        """Note that the device was restarted. The next reading may come from a clock that was set back."""
        self._panes.begin_epoch()

    def add(self, column: Column) -> list[ReadingWindow]:
        """Add readings, and return the windows that end with the panes that these readings close, in order."""
        windows = [window for pane in self._panes.add(column) for window in self._ended(pane)]
        self.late, self._panes.late = self.late + self._panes.late, 0
        if self._panes.set_back:
            self._pending.clear()
        self.set_back, self._panes.set_back = self.set_back + self._panes.set_back, 0
        return windows

    @property
    def pending_ns(self) -> int | None:
        """Event time in ns at which a window with new readings is due; None if no window has new readings."""
        pane_ns = self._panes.pending_ns
        windows_ns = [end_ns + _EVALUATED_NS for end_ns in self._pending]
        return min([*windows_ns, *([pane_ns] if pane_ns is not None else [])], default=None)

    def due(self, now_ns: int) -> list[ReadingWindow]:
        """Return the windows, in order, that contain a pane with new readings and have ended before ``now_ns``."""
        self._pending.update(end for pane in self._panes.due(now_ns) for end in self._ends(pane.start_ns))
        ends = sorted(end for end in self._pending if end <= now_ns - _EVALUATED_NS)
        if not ends:
            return []
        self._pending.difference_update(ends)
        panes = self._closed | {pane.start_ns: pane for pane in self._panes.open_windows()}
        return [self._window(end, sorted(panes.items())) for end in ends]

    def _ends(self, start_ns: int) -> range:
        """Return the ends of the windows that contain a pane."""
        return range(start_ns + self._hop_ns, start_ns + self._length_ns + 1, self._hop_ns)

    def _ended(self, pane: ReadingWindow) -> Iterator[ReadingWindow]:
        """Add the next closed pane, and yield each window that ends after the end of the previous pane, up to the end
        of this pane."""
        last_ns = next(reversed(self._closed), None)
        if last_ns is not None and last_ns >= pane.start_ns:  # the sensor's clock was set back
            self._closed.clear()
            self._pending.clear()
            last_ns = None
        if last_ns is not None:
            for end_ns in self._ends(last_ns)[1:]:
                if end_ns <= pane.start_ns:
                    yield self._window(end_ns, self._closed.items())
        end_ns = pane.start_ns + self._hop_ns
        self._closed[pane.start_ns] = pane
        for start_ns in [one for one in self._closed if one < end_ns - self._length_ns]:
            del self._closed[start_ns]
        yield self._window(end_ns, self._closed.items())

    def _window(self, end_ns: int, panes: Iterable[tuple[int, ReadingWindow]]) -> ReadingWindow:
        self._pending.discard(end_ns)
        start_ns = end_ns - self._length_ns
        window = ReadingWindow(start_ns)
        for pane_ns, pane in panes:
            if start_ns <= pane_ns < end_ns:
                window.count += pane.count
                window.total += pane.total
        return window
