"""Polling at a fixed rate, for devices that send a reading only on request."""

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
"""Function that reads one sensor, given the sensor's configuration and the index of the tick.

The function raises SensorSilent if the sensor does not answer, and SourceError if the whole device is gone."""


async def poll(sensors: Sequence[SensorConfig], ask: Ask, sink: Sink, clock: Clock) -> None:
    """Poll each sensor at its own rate until cancelled. Raise the first error of ``ask`` other than SensorSilent."""
    asking = [asyncio.create_task(_one(sensor, ask, sink, clock)) for sensor in sensors]
    try:
        await asyncio.gather(*asking)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)


async def ticks(rate_hz: float, clock: Clock) -> AsyncIterator[int]:
    """Yield the index of each tick at the time when the tick is due. A tick that was missed is skipped."""
    start_s, index = clock.monotonic(), 0
    while True:
        yield index
        passed_s = clock.monotonic() - start_s
        index = max(index + 1, int(passed_s * rate_hz))
        await asyncio.sleep(max(0.0, index / rate_hz - passed_s))


def heed_cancellation() -> None:
    """Raise CancelledError if this task was cancelled and a library has suppressed the CancelledError.

    Libraries call ``asyncio.wait_for``, which in Python 3.11 loses a cancellation that arrives together with the
    result (https://github.com/python/cpython/issues/86296).
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
            # a silent sensor delays others on its wire by its timeout, so it is polled less often
            await asyncio.sleep(backoff.failed(clock.monotonic(), random.random()))
            continue
        heed_cancellation()
        backoff = Backoff()
        sink.opened()
        sink.take(sensor.name, reading)
