"""One sensor's life in the agent: its epoch, what of it is promised, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from edge_agent.exceptions import SpoolUnavailable
from edge_agent.metrics import AgentMetrics
from edge_agent.sensors.intake import ReadingIntake
from edge_agent.sensors.source import Reading
from edge_agent.spool.schema import Depth, Row
from edge_agent.spool.spool import Spool
from edge_agent.status import readings_row
from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.records import CameraState, EpochEnd, Readings, SensorStatus
from ingest.runtime import logs
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig

_log = logs.get("edge_agent.sensor")

SAY_EVERY_S = 60.0
"""A device whose every other reading is garbage would fill the log."""


class Sensor:
    """Keeps what a source gives it. One epoch is from the agent's start to its end; an outage does not end it."""

    def __init__(
        self,
        config: SensorConfig,
        spool: Spool,
        on_disk: Callable[..., Any],
        *,
        instance: str,
        on_kept: Callable[[], None],
        clock: Clock,
        metrics: AgentMetrics,
    ) -> None:
        self.config = config
        self._spool, self._on_disk, self._instance, self._on_kept = spool, on_disk, instance, on_kept
        self._clock, self._metrics = clock, metrics
        self._intake = ReadingIntake(config, 0, clock)
        self._wake = asyncio.Event()
        self._stopping = False
        self._heard_s = clock.monotonic()
        self._lost_s: float | None = None
        self._said_s: float | None = None
        self.epoch = 0
        self.kept = 0
        self.state: CameraState = "starting"
        self.reason = ""

    async def begin(self) -> None:
        """Begin an epoch. Raise SpoolError when nothing can be promised."""
        now_s = self._clock.now_ns() // 1_000_000_000
        self.epoch = await self._on_disk(self._spool.begin_epoch, self.config.name, "readings", now_s)
        self._intake, self.kept, self._heard_s = ReadingIntake(self.config, self.epoch, self._clock), 0, self._now_s()

    def stop(self) -> None:
        """Ask for a clean end, when no more will be taken."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Promise what has been gathered, when it is due, and all of it at the end. Raise SpoolError.

        It is stopped, not cancelled, so that what is on its way to the disk arrives there.
        """
        try:
            while not self._stopping:
                await self._once()
            await self._end()
        except SpoolUnavailable as error:  # the agent ends with a disk that takes nothing
            _log.warning("left open", sensor=self.config.name, error=str(error))  # the next start closes the epoch

    async def _once(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._left_s()):
                await self._wake.wait()
        self._wake.clear()
        if self._silent_s() == 0.0:
            self.lost(f"no reading for {self.config.silent_after_s:g} s", "stalled")
        await self._keep(self._intake.ready())

    def opened(self) -> None:
        """Note that the connection is well. That a silent sensor is well again, only its next reading shows."""
        if self.state in ("starting", "down"):
            self._back()

    def take(self, reading: Reading) -> None:
        """Take a reading; does not block."""
        waited, reason = self._intake.left_s() is not None, self._intake.take(reading)
        self._metrics.readings.labels(self.config.name, reason or "taken").inc()
        self._heard_s = self._now_s()
        if self.state != "running":
            self._back()
        self._told(reason, reading.problem)
        if not waited or self._intake.left_s() == 0.0:
            self._wake.set()

    def lost(self, reason: str, state: CameraState = "down") -> None:
        """Note that the device has gone, or is silent. An outage is told, and counted, once."""
        began = self._lost_s is None
        self.state, self.reason = state, reason
        if began:
            self._lost_s = self._now_s()
            self._intake.lose()
            self._metrics.readings.labels(self.config.name, "outage").inc()
            _log.warning("sensor lost", sensor=self.config.name, reason=reason)

    @property
    def captured(self) -> int:
        """How many readings of this epoch have a number."""
        return self._intake.captured

    def status(self, depth: Sequence[Depth]) -> SensorStatus:
        """Return what a heartbeat says of this sensor; ``depth`` is what waits of its epochs."""
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
        end = EpochEnd(camera=self.config.name, epoch=self.epoch, last=last, clean=True, told=last)
        row = readings_row(self._instance, [end], [tail] if tail else [], self._clock)
        await self._on_disk(self._spool.end_epoch, self.config.name, self.epoch, [row])
        self._on_kept()

    def _back(self) -> None:
        if self._lost_s is not None:
            out_s = round(self._now_s() - self._lost_s, 1)
            _log.info("sensor back", sensor=self.config.name, out_for_s=out_s)
        self._lost_s, self._heard_s = None, self._now_s()
        self.state, self.reason = "running", ""

    def _told(self, reason: str, problem: str) -> None:
        """Say what is wrong with readings, once until one is well again, and not all the time.

        A wrong path makes all of them unusable.
        """
        before, self.reason = self.reason, f"{reason}: {problem}".rstrip(": ") if reason else ""
        now_s = self._now_s()
        if reason and not before and (self._said_s is None or now_s - self._said_s >= SAY_EVERY_S):
            self._said_s = now_s
            _log.warning("reading withheld", sensor=self.config.name, reason=self.reason)

    def _left_s(self) -> float | None:
        left = [each for each in (self._intake.left_s(), self._silent_s()) if each is not None]
        return min(left, default=None)

    def _silent_s(self) -> float | None:
        """Return in how many seconds the sensor is silent for too long; None when that is not watched, or known."""
        if not self.config.silent_after_s or self._lost_s is not None:
            return None
        return max(0.0, self._heard_s + self.config.silent_after_s - self._now_s())

    async def _keep(self, readings: Sequence[Readings]) -> None:
        if not readings:
            return
        await self._on_disk(self._spool.keep, [self._row(each) for each in readings])
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

    def _now_s(self) -> float:
        return self._clock.monotonic()
