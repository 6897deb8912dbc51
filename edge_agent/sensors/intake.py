"""Intake of a sensor's readings: number the readings, check their time and quality, and collect them into records.

Pure. Like a frame, a reading gets its sequence number before any stage may drop the reading. If too many records wait
for the disk, a new reading is dropped and counted as ``overload``, so that the device is never blocked. One record
holds many readings, because a record for each reading would waste space.
"""

from __future__ import annotations

from typing import NamedTuple

from edge_agent.camera.tally import Tally
from edge_agent.sensors.source import Reading
from edge_agent.sensors.values import reading_time
from ingest.contract.records import BY_HOST, OUT_OF_RANGE, Readings, WithheldInterval
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig

MAX_WAITING = 32
"""Maximum number of records that wait for the disk. For the fastest sensor, 32 records hold the readings of several
seconds. While 32 records wait, new readings are dropped and counted as ``overload``."""


class NumberedReading(NamedTuple):
    """Reading with its sequence number, its time in Unix ns, the clock that gave the time, and its quality flags."""

    seq: int
    at_ns: int
    timed_by: int
    value: float
    quality: int


class ReadingIntake:
    """Numbers the readings of one sensor during one epoch (capture run), and collects the readings into records.

    Readings with consecutive sequence numbers are gathered for one record, until the record is full or its first
    reading has waited for ``max_delay_s``.
    """

    def __init__(self, config: SensorConfig, epoch: int, clock: Clock) -> None:
        self._config, self._epoch, self._clock = config, epoch, clock
        self._tally = Tally(config.name, epoch)
        self._gathered: list[NumberedReading] = []
        self._account: WithheldInterval | None = None
        """Number of readings that were dropped between the last finished record and the first gathered reading, by
        reason. No reading was dropped between the gathered readings."""
        self._due_s = 0.0
        """Monotonic time at which the gathered readings must be stored, because the first of the gathered readings
        has waited for ``max_delay_s``."""
        self._waiting: list[Readings] = []

    @property
    def captured(self) -> int:
        """Number of sequence numbers that were used for readings and for outages."""
        return self._tally.captured

    def take(self, reading: Reading) -> str:
        """Give a reading that arrives now a sequence number, and add the reading to the gathered readings.

        Return an empty string, or the reason if the reading is dropped: ``unusable`` or ``overload``.
        """
        seq = self._tally.number()
        reason = "unusable" if reading.value is None else "overload" if len(self._waiting) >= MAX_WAITING else ""
        if reading.value is None or reason:
            self._tally.withhold(reason)
            return reason
        if self._gathered and self._gathered[-1].seq + 1 != seq:
            self._finish_columns()
        at_ns, timed_by = reading_time(reading.at_ns, self._clock.now_ns())
        within = self._config.low <= reading.value <= self._config.high
        quality = reading.quality | (0 if within else OUT_OF_RANGE)
        account = self._tally.account()
        if not self._gathered:
            self._account, self._due_s = account, self._clock.monotonic() + self._config.max_delay_s
        self._gathered.append(NumberedReading(seq, max(0, at_ns), timed_by, reading.value, quality))
        if len(self._gathered) >= self._config.column_rows:
            self._finish_columns()
        return ""

    def lose(self) -> None:
        """Count an outage of the device. Each outage uses one sequence number, however many readings were missed."""
        self._tally.number()
        self._tally.withhold("outage")

    def left_s(self) -> float | None:
        """Return the seconds until gathered readings must be stored, or None if no readings are gathered."""
        if self._waiting:
            return 0.0
        return max(0.0, self._due_s - self._clock.monotonic()) if self._gathered else None

    def ready(self) -> list[Readings]:
        """Return the records to store now, in order: full records, and a record whose first reading has waited long
        enough.
        """
        if self._gathered and self._due_s <= self._clock.monotonic():
            self._finish_columns()
        found, self._waiting = self._waiting, []
        return found

    def close(self) -> list[Readings]:
        """Return the records of all gathered readings, at the end of the epoch (capture run)."""
        self._finish_columns()
        return self.ready()

    def tail(self) -> WithheldInterval | None:
        """Return the number of readings that were dropped after the last kept reading, by reason; None if no reading
        was dropped.
        """
        return self._tally.tail()

    def _finish_columns(self) -> None:
        """Combine the gathered readings, if any, into a record that waits for the disk."""
        readings, self._gathered = self._gathered, []
        if not readings:
            return
        timed_by = tuple(r.timed_by for r in readings)
        columns = Readings(
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
        self._waiting.append(columns)
