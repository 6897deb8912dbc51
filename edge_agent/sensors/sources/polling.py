"""Asking at a rate: for sources that speak only when they are asked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from edge_agent.exceptions import SensorSilent
from edge_agent.sensors.source import Reading, Sink
from ingest.runtime.backoff import Backoff
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig

Ask = Callable[[SensorConfig, int], Awaitable[Reading]]
"""Returns the reading of a sensor that is due with this number.

Raises SensorSilent when this one does not answer, SourceError when the device is gone.
"""


async def poll(sensors: Sequence[SensorConfig], ask: Ask, sink: Sink, clock: Clock) -> None:
    """Ask for the reading of each sensor at its own rate until cancelled. Raise the first error of ``ask``."""
    asking = [asyncio.create_task(_one(sensor, ask, sink, clock)) for sensor in sensors]
    try:
        await asyncio.gather(*asking)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


async def ticks(rate_hz: float, clock: Clock) -> AsyncIterator[int]:
    """Yield the number of each moment that is due, when it is; moments that were missed are not made up for."""
    start_s, index = clock.monotonic(), 0
    while True:
        yield index
        passed_s = clock.monotonic() - start_s
        index = max(index + 1, int(passed_s * rate_hz))
        await asyncio.sleep(max(0.0, index / rate_hz - passed_s))


def heed_cancellation() -> None:
    """Raise CancelledError when this task was cancelled and has not noticed.

    ``asyncio.wait_for`` of Python 3.11, which libraries call, returns a result that comes in the very moment of a
    cancellation, and the cancellation is lost (https://github.com/python/cpython/issues/86296).
    """
    task = asyncio.current_task()
    if task and task.cancelling():
        raise asyncio.CancelledError


async def _one(sensor: SensorConfig, ask: Ask, sink: Sink, clock: Clock) -> None:
    backoff = Backoff()
    async for index in ticks(sensor.rate_hz, clock):
        try:
            reading = await ask(sensor, index)
        except SensorSilent as error:
            sink.lost(sensor.name, str(error))
            # others wait on the same wire until this one's time is out: it is asked less often
            await asyncio.sleep(backoff.failed(clock.monotonic(), random.random()))
            continue
        heed_cancellation()
        backoff = Backoff()
        sink.opened()
        sink.take(sensor.name, reading)
