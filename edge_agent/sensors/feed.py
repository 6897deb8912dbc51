"""One connection's life in the agent: a source, the sensors that it feeds, and its next start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from edge_agent.exceptions import SourceError
from edge_agent.metrics import AgentMetrics
from edge_agent.sensors.sensor import Sensor
from edge_agent.sensors.source import Reading, SensorSource
from ingest.runtime import logs
from ingest.runtime.backoff import STEADY_S, Backoff
from ingest.runtime.clock import Clock

_log = logs.get("edge_agent.feed")

_NAMES_TOLD = 20
"""So many names that no sensor wants are told; a device with more of them is not asked to be quiet."""


class Feed:
    """Keeps a source going until it is told to stop, and its sensors with it. The sink of its source."""

    def __init__(
        self,
        name: str,
        source: SensorSource,
        sensors: Sequence[Sensor],
        *,
        chance: Callable[[], float],
        clock: Clock,
        metrics: AgentMetrics,
    ) -> None:
        self.name, self.sensors = name, sensors
        self._source, self._chance, self._clock, self._metrics = source, chance, clock, metrics
        self._by_name = {sensor.config.name: sensor for sensor in sensors}
        self._backoff = Backoff()
        self._stop = asyncio.Event()
        self._unclaimed: set[str] = set()

    def stop(self) -> None:
        """Ask for a clean end."""
        self._stop.set()

    async def run(self) -> None:
        """Read until told to stop; what has been gathered then is promised too. Raise SpoolError."""
        for sensor in self.sensors:
            await sensor.begin()
        serving, stopped = asyncio.create_task(self._serve()), asyncio.create_task(self._stop.wait())
        keeping = [asyncio.create_task(sensor.run()) for sensor in self.sensors]
        try:
            await asyncio.wait({serving, stopped, *keeping}, return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            await asyncio.wait({serving})
            for sensor in self.sensors:
                sensor.stop()
            await asyncio.gather(*keeping)
        finally:
            for task in (serving, stopped, *keeping):
                task.cancel()
            await asyncio.gather(serving, stopped, *keeping, return_exceptions=True)

    def opened(self) -> None:
        """Note that the device answers."""
        for sensor in self.sensors:
            sensor.opened()

    def take(self, sensor: str, reading: Reading) -> None:
        """Give a reading to its sensor."""
        self._by_name[sensor].take(reading)

    def lost(self, sensor: str, reason: str) -> None:
        """Note that one sensor does not answer."""
        self._by_name[sensor].lost(reason, "stalled")

    def unclaimed(self, name: str) -> None:
        """Count a reading that no sensor wants, and say each name once, so that a misspelt one is found."""
        self._metrics.unclaimed.labels(self.name).inc()
        if name not in self._unclaimed and len(self._unclaimed) < _NAMES_TOLD:
            self._unclaimed.add(name)
            _log.info("no sensor wants it", source=self.name, field=name or "nothing that can be read")

    async def _serve(self) -> None:
        """Run the source for ever. Whatever ends it, the other sensors and the cameras go on."""
        while True:
            started_s = self._clock.monotonic()
            try:
                await self._source.run(self)
                reason = "it has ended"
            except SourceError as error:
                reason = str(error)
            except Exception as error:  # a library's fault at one device
                reason = repr(error)
                _log.exception("source failed", source=self.name)
            for sensor in self.sensors:
                sensor.lost(reason)
            self._metrics.source_restarts.labels(self.name).inc()
            if self._clock.monotonic() - started_s >= STEADY_S:
                self._backoff.steady(started_s)
            await asyncio.sleep(self._backoff.failed(started_s, self._chance()))
