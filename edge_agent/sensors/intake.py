"""Intake of a sensor's readings: number, time, quality, columns, or a reason to withhold. Pure.

A reading gets its number before anything may drop it, as a frame does. A reading that cannot be kept now is withheld
as ``overload``; the device is never blocked. Readings travel in columns, because a record of its own for each number
would be wasteful.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from edge_agent.camera.tally import Tally
from edge_agent.sensors.source import Reading
from edge_agent.sensors.values import reading_time
from ingest.contract.records import BY_HOST, OUT_OF_RANGE, Account, Readings
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig

MAX_WAITING = 32
"""Maximum number of records that wait for the disk: seconds of the fastest sensor. A slower disk is overloaded."""


class NumberedReading(NamedTuple):
    """Reading with its number, its time in Unix ns, whose clock gave that time, and its quality flags."""

    seq: int
    at_ns: int
    timed_by: int
    value: float
    quality: int


class Columns:
    """Readings of consecutive numbers, gathered until they are enough or the first one has waited long enough."""

    def __init__(self, config: SensorConfig, epoch: int) -> None:
        self._config, self._epoch = config, epoch
        self._readings: list[NumberedReading] = []
        self._account: Account | None = None
        self._due_s = 0.0

    @property
    def due_s(self) -> float | None:
        """Monotonic time at which the first reading has waited long enough; None without a reading."""
        return self._due_s if self._readings else None

    def follows(self, seq: int) -> bool:
        """Return whether a number is the next one, so that its reading may join the same columns."""
        return not self._readings or self._readings[-1].seq + 1 == seq

    def add(self, reading: NumberedReading, account: Account | None, now_s: float) -> Readings | None:
        """Add a reading that follows. Return the columns when they are full.

        ``account`` counts the readings withheld before it. Only the first reading of the columns may have one.
        """
        if not self._readings:
            self._account, self._due_s = account, now_s + self._config.max_delay_s
        self._readings.append(reading)
        return self.close() if len(self._readings) >= self._config.column_rows else None

    def close(self) -> Readings | None:
        """Return the gathered readings, None without any."""
        readings, self._readings = self._readings, []
        if not readings:
            return None
        timed_by = tuple(r.timed_by for r in readings)
        return Readings(
            sensor=self._config.name,
            epoch=self._epoch,
            seq=readings[0].seq,
            site=self._config.site,
            quantity=self._config.quantity,
            unit=self._config.unit,
            times_ns=tuple(r.at_ns for r in readings),
            values=tuple(r.value for r in readings),
            quality=tuple(r.quality for r in readings),
            timed_by=timed_by if any(by != BY_HOST for by in timed_by) else (),
            account=self._account,
        )


class ReadingIntake:
    """Intake of one epoch of one sensor."""

    def __init__(self, config: SensorConfig, epoch: int, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._tally = Tally(config.name, epoch)
        self._columns = Columns(config, epoch)
        self._waiting: deque[Readings] = deque()

    @property
    def captured(self) -> int:
        """Number of readings that have been numbered."""
        return self._tally.captured

    def take(self, reading: Reading) -> str:
        """Take a reading that arrives now. Return the reason if it is withheld, otherwise an empty string."""
        seq = self._tally.number()
        reason = "unusable" if reading.value is None else "overload" if len(self._waiting) >= MAX_WAITING else ""
        if reading.value is None or reason:
            self._tally.withhold(reason)
            return reason
        if not self._columns.follows(seq):
            self._put(self._columns.close())
        at_ns, timed_by = reading_time(reading.at_ns, self._clock.now_ns())
        within = self._config.low <= reading.value <= self._config.high
        quality = reading.quality | (0 if within else OUT_OF_RANGE)
        numbered = NumberedReading(seq, max(0, at_ns), timed_by, reading.value, quality)
        self._put(self._columns.add(numbered, self._tally.account(), self._clock.monotonic()))
        return ""

    def lose(self) -> None:
        """Count an outage of the device: one number, however many readings are missed."""
        self._tally.number()
        self._tally.withhold("outage")

    def left_s(self) -> float | None:
        """Return the seconds until readings are ready to be kept, None if none are gathered."""
        if self._waiting:
            return 0.0
        due_s = self._columns.due_s
        return None if due_s is None else max(0.0, due_s - self._clock.monotonic())

    def ready(self) -> list[Readings]:
        """Return the records to keep now, in order: full columns, and columns whose first reading is due."""
        due_s = self._columns.due_s
        if due_s is not None and due_s <= self._clock.monotonic():
            self._put(self._columns.close())
        return self._drained()

    def close(self) -> list[Readings]:
        """Return all gathered readings, at the end of the epoch."""
        self._put(self._columns.close())
        return self._drained()

    def tail(self) -> Account | None:
        """Return the account of readings withheld after the last kept one, at the end of the epoch; None if none."""
        return self._tally.tail()

    def _drained(self) -> list[Readings]:
        found = list(self._waiting)
        self._waiting.clear()
        return found

    def _put(self, readings: Readings | None) -> None:
        if readings:
            self._waiting.append(readings)
