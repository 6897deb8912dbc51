"""Asking at a rate: for sources that speak only when they are asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from edge_agent.sensors.source import Reading, Sink
from ingest.clock import Clock
from ingest.site import SensorConfig

__all__ = ["Ask", "poll", "ticks"]

Ask = Callable[[SensorConfig, int], Awaitable[Reading]]
"""Returns the reading of a sensor that is due with this number. Raises SourceError when the device is gone."""


async def poll(sensors: Sequence[SensorConfig], ask: Ask, sink: Sink, clock: Clock) -> None:
    """Ask for the reading of each sensor at its own rate until cancelled. Raise the first error of ``ask``."""
    try:
        async with asyncio.TaskGroup() as group:
            for sensor in sensors:
                group.create_task(_one(sensor, ask, sink, clock))
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def ticks(rate_hz: float, clock: Clock) -> AsyncIterator[int]:
    """Yield the number of each moment that is due, when it is; moments that were missed are not made up for."""
    start_s, index = clock.monotonic(), 0
    while True:
        yield index
        passed_s = clock.monotonic() - start_s
        index = max(index + 1, int(passed_s * rate_hz))
        await asyncio.sleep(max(0.0, index / rate_hz - passed_s))


async def _one(sensor: SensorConfig, ask: Ask, sink: Sink, clock: Clock) -> None:
    async for index in ticks(sensor.rate_hz, clock):
        reading = await ask(sensor, index)
        sink.opened()
        sink.take(sensor.name, reading)
