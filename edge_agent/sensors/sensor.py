"""One sensor in the agent: begins the epoch (capture run), stores readings in the spool, and reports the sensor's
state."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.metrics import AgentMetrics
from edge_agent.sensors.intake import ReadingIntake
from edge_agent.sensors.source import Reading
from edge_agent.spool.schema import Depth, Row
from edge_agent.spool.spool import Spool
from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.records import CameraState, EpochEnd, Readings, SensorStatus
from ingest.runtime import logs
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig

_log = logs.get("edge_agent.sensor")

WARN_EVERY_S = 60.0
"""Minimum time in seconds between two warnings of one sensor. Without a limit on warnings, a device with many
unreadable readings would fill the log."""


class Sensor:
    """Numbers one sensor's readings and stores them in the spool.

    A sensor's epoch lasts from the start of the agent to the end of the agent, and continues during outages of the
    device.
    """

    def __init__(
        self,
        config: SensorConfig,
        spool: Spool,
        *,
        on_kept: Callable[[], None],
        clock: Clock,
        metrics: AgentMetrics,
    ) -> None:
        self.config = config
        self._spool, self._on_kept = spool, on_kept
        self._clock, self._now_s, self._metrics = clock, clock.monotonic, metrics
        self._intake = ReadingIntake(config, 0, clock)
        self._wake = asyncio.Event()
        self._stopping = False
        self._heard_s = clock.monotonic()
        self._lost_s: float | None = None
        self._warned_s: float | None = None
        self.epoch = 0
        self.kept = 0
        self.state: CameraState = "starting"
        self.reason = ""

    async def begin(self) -> None:
        """Begin an epoch. Raise SpoolError if the spool cannot store the epoch (capture run)."""
        self.epoch = await self._spool.begin_epoch(self.config.name, "readings")
        self._intake, self.kept, self._heard_s = ReadingIntake(self.config, self.epoch, self._clock), 0, self._now_s()

    def stop(self) -> None:
        """Request that ``run`` stores the remaining readings and ends.

        After this call, the caller must not call ``take``.
        """
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Store gathered readings in the spool when they are due.

        After a call of ``stop``, store the remaining readings and end.

        Raise SpoolError. Call ``stop`` instead of cancelling this task, because cancelling would lose readings that
        are not yet on the disk.
        """
        try:
            while not self._stopping:
                await self._once()
            await self._end()
        except SpoolUnavailable as error:  # the agent ends while its disk accepts no writes
            # the next start closes the epoch
            _log.warning("sensor_epoch_left_open", sensor=self.config.name, error=str(error))

    async def _once(self) -> None:
        waits_s = [left_s for left_s in (self._intake.left_s(), self._silent_s()) if left_s is not None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(waits_s, default=None)):
                await self._wake.wait()
        self._wake.clear()
        if self._silent_s() == 0.0:
            self.lost(f"no reading for {self.config.silent_after_s:g} s", "stalled")
        await self._keep(self._intake.ready())

    def opened(self) -> None:
        """Record that the connection to the device works.

        A sensor in the state ``stalled`` stays in that state until its next reading.
        """
        if self.state in ("starting", "down"):
            self._back()

    def take(self, reading: Reading) -> None:
        """Give a reading a sequence number and gather the reading for the spool, without blocking."""
        waited, reason = self._intake.left_s() is not None, self._intake.take(reading)
        self._metrics.readings.labels(self.config.name, reason or "taken").inc()
        self._heard_s = self._now_s()
        if self.state != "running":
            self._back()
        self._warn(reason, reading.problem)
        if not waited or self._intake.left_s() == 0.0:
            self._wake.set()

    def lost(self, reason: str, state: CameraState = "down") -> None:
        """Record that the device is gone or silent. Log and count each outage only once."""
        self.state, self.reason = state, reason
        if self._lost_s is None:
            self._lost_s = self._now_s()
            self._intake.lose()
            self._metrics.readings.labels(self.config.name, "outage").inc()
            _log.warning("sensor_lost", sensor=self.config.name, reason=reason)

    @property
    def captured(self) -> int:
        """Number of sequence numbers used in this epoch (capture run), for readings and for outages."""
        return self._intake.captured

    def status(self, depth: Sequence[Depth]) -> SensorStatus:
        """Return this sensor's part of a heartbeat.

        ``depth`` has the number and bytes of this sensor's rows in the spool, one item for each epoch (capture run).
        """
        return SensorStatus(
            sensor=self.config.name,
            epoch=self.epoch,
            state=self.state,
            reason=self.reason,
            captured=self.captured,
            kept=self.kept,
            spooled=sum(d.frames for d in depth),
            spooled_bytes=sum(d.bytes for d in depth),
        )

    async def _end(self) -> None:
        await self._keep(self._intake.close())
        self.state, self.reason, tail = "ended", "", self._intake.tail()
        last = self.captured - 1
        end = EpochEnd(camera=self.config.name, epoch=self.epoch, last=last, clean=True, reported=last)
        await self._spool.end_epoch("readings", end, [tail] if tail else [])
        self._on_kept()

    def _back(self) -> None:
        if self._lost_s is not None:
            down_s = round(self._now_s() - self._lost_s, 1)
            _log.info("sensor_back", sensor=self.config.name, down_s=down_s)
        self._lost_s, self._heard_s = None, self._now_s()
        self.state, self.reason = "running", ""

    def _warn(self, reason: str, problem: str) -> None:
        """Log a dropped reading with the reason, if the previous reading was good, at most once in ``WARN_EVERY_S``.

        The number of warnings is limited because, for example, a wrong JSON path makes all readings unusable.
        """
        before, self.reason = self.reason, f"{reason}: {problem}".rstrip(": ") if reason else ""
        now_s = self._now_s()
        if reason and not before and (self._warned_s is None or now_s - self._warned_s >= WARN_EVERY_S):
            self._warned_s = now_s
            _log.warning("reading_withheld", sensor=self.config.name, reason=self.reason)

    def _silent_s(self) -> float | None:
        """Return the seconds until the sensor counts as silent, or None if the sensor is allowed to be silent or is
        already lost.
        """
        if not self.config.silent_after_s or self._lost_s is not None:
            return None
        return max(0.0, self._heard_s + self.config.silent_after_s - self._now_s())

    async def _keep(self, readings: Sequence[Readings]) -> None:
        if not readings:
            return
        await self._spool.keep([self._row(each) for each in readings], wait_for_room=True)
        self.kept += sum(len(each.values) for each in readings)
        self._on_kept()

    def _row(self, readings: Readings) -> Row:
        return Row(
            kind="readings",
            name=readings.sensor,
            epoch=readings.epoch,
            seq=readings.last_seq,
            captured_ns=min(readings.times_ns),
            record=encode(readings),
            traceparent=h.new_traceparent(),
        )
