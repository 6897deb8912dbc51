"""One sensor's life in the agent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.columns import Columns
from edge_agent.sensors.simulated import SimulatedSensor
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from ingest import headers as h
from ingest.clock import Clock
from ingest.codec import encode
from ingest.records import Readings
from ingest.site import SensorConfig

__all__ = ["Sensor"]

_SIMULATED = "simulated:"


class Sensor:
    """Reads one sensor at its rate, and promises columns of readings."""

    def __init__(
        self,
        config: SensorConfig,
        spool: Spool,
        on_disk: Callable[..., Any],
        on_kept: Callable[[], None],
        clock: Clock,
    ) -> None:
        if not config.source.startswith(_SIMULATED):
            raise SourceUnusable(f"sensor {config.name}: source = {config.source!r}: expected simulated:temperature")
        self._config, self._spool, self._on_disk, self._on_kept, self._clock = config, spool, on_disk, on_kept, clock
        self._device = SimulatedSensor(int(config.options.get("seed", 0)), config.rate_hz)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask for a clean end."""
        self._stop.set()

    async def run(self) -> None:
        """Read until told to stop; what has been gathered then is promised too."""
        now_s = self._clock.now_ns() // 1_000_000_000
        epoch = await self._on_disk(self._spool.begin_epoch, self._config.name, "readings", now_s)
        columns, index = Columns(self._config, epoch), 0
        start_s = self._clock.monotonic()
        while not self._stop.is_set():
            await self._keep(columns.add(self._clock.now_ns(), self._device.value(index)))
            index += 1
            with contextlib.suppress(TimeoutError):
                due_s = start_s + index / self._config.rate_hz
                await asyncio.wait_for(self._stop.wait(), max(0.0, due_s - self._clock.monotonic()))
        await self._keep(columns.close())

    async def _keep(self, readings: Readings | None) -> None:
        if readings is None:
            return
        row = Row(
            kind="readings",
            name=readings.sensor,
            epoch=readings.epoch,
            seq=readings.seq,
            captured_ns=readings.times_ns[0],
            record=encode(readings),
            traceparent=h.new_traceparent(),
        )
        await self._on_disk(self._spool.keep, [row])
        self._on_kept()
