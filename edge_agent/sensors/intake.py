"""What becomes of each reading of a sensor: numbered, timed, judged, gathered, or withheld with a reason. Pure.

A reading gets its number before anything may drop it, as a frame does. What cannot be kept now is withheld as
``overload``, and the device is never blocked.
"""

from __future__ import annotations

from collections import deque

from edge_agent.camera.tally import Tally
from edge_agent.sensors.columns import Columns, Entry
from edge_agent.sensors.source import Reading
from edge_agent.sensors.times import timed
from ingest.contract.records import OUT_OF_RANGE, Account, Readings
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig

MAX_WAITING = 32
"""Records that wait for the disk: seconds of the fastest sensor. A disk that takes longer is overloaded."""


class ReadingIntake:
    """The readings of one epoch of one sensor."""

    def __init__(self, config: SensorConfig, epoch: int, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._tally = Tally(config.name, epoch)
        self._columns = Columns(config, epoch)
        self._waiting: deque[Readings] = deque()

    @property
    def captured(self) -> int:
        """How many numbers were given."""
        return self._tally.captured

    def take(self, reading: Reading) -> str:
        """Take a reading that comes now. Return why it is withheld, and nothing when it is not."""
        seq = self._tally.number()
        reason = "unusable" if reading.value is None else "overload" if len(self._waiting) >= MAX_WAITING else ""
        if reading.value is None or reason:
            self._tally.withhold(reason)
            return reason
        if not self._columns.follows(seq):
            self._put(self._columns.close())
        at_ns, timed_by = timed(reading.at_ns, self._clock.now_ns())
        within = self._config.low <= reading.value <= self._config.high
        quality = reading.quality | (0 if within else OUT_OF_RANGE)
        entry = Entry(seq, max(0, at_ns), timed_by, reading.value, quality)
        self._put(self._columns.add(entry, self._tally.account(), self._clock.monotonic()))
        return ""

    def lose(self) -> None:
        """Note that the device has gone: one number, for however many readings are missed."""
        self._tally.number()
        self._tally.withhold("outage")

    def left_s(self) -> float | None:
        """Return in how many seconds something is ready to be kept, None when nothing is on its way."""
        if self._waiting:
            return 0.0
        due_s = self._columns.due_s
        return None if due_s is None else max(0.0, due_s - self._clock.monotonic())

    def ready(self) -> list[Readings]:
        """Return what is to be kept now, in order: full columns, and those whose first reading has waited enough."""
        due_s = self._columns.due_s
        if due_s is not None and due_s <= self._clock.monotonic():
            self._put(self._columns.close())
        found = list(self._waiting)
        self._waiting.clear()
        return found

    def close(self) -> list[Readings]:
        """Return all that is gathered, at the end of the epoch."""
        self._put(self._columns.close())
        found = list(self._waiting)
        self._waiting.clear()
        return found

    def tail(self) -> Account | None:
        """Return what was withheld after the last kept reading, at the end of the epoch; None if nothing was."""
        return self._tally.tail()

    def _put(self, readings: Readings | None) -> None:
        if readings:
            self._waiting.append(readings)
