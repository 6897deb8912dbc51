"""Feed: runs the source of one connection, restarts the source after failures, and passes readings to the sensors."""

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

_MAX_UNCLAIMED_NAMES = 20
"""Maximum number of different names that are logged for readings that no sensor claims. The limit exists because a
device may send any number of names."""


class SensorFeed:
    """Runs one source and its sensors until ``stop`` is called.

    The feed is the ``Sink`` that receives the source's readings.
    """

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
        self._limit = ""

    def stop(self) -> None:
        """Request that ``run`` stores the gathered readings and ends."""
        self._stop.set()

    async def run(self) -> None:
        """Run until ``stop`` is called, and then store the gathered readings in the spool. Raise SpoolError."""
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
        """Mark all sensors of this feed as connected."""
        for sensor in self.sensors:
            sensor.opened()

    def take(self, sensor: str, reading: Reading) -> None:
        """Pass a reading to the sensor with the name ``sensor``."""
        self._by_name[sensor].take(reading)

    def lost(self, sensor: str, reason: str) -> None:
        """Mark one sensor as stalled."""
        self._by_name[sensor].lost(reason, "stalled")

    def limited(self, limit: str) -> None:
        """Log a limitation of the connection, such as an old protocol version.

        A repeated limitation is logged only once.
        """
        if limit != self._limit:
            self._limit = limit
            _log.warning("sensor_source_limited", source=self.name, limit=limit)

    def unclaimed(self, name: str) -> None:
        """Count a reading that no sensor claims.

        Log each name once, because the name in the site file may be misspelt.
        """
        self._metrics.unclaimed.labels(self.name).inc()
        if name not in self._unclaimed and len(self._unclaimed) < _MAX_UNCLAIMED_NAMES:
            self._unclaimed.add(name)
            _log.info("reading_without_configured_sensor", source=self.name, field=name or "unreadable data")

    async def _serve(self) -> None:
        """Run the source, and run the source again whenever the source ends or fails.

        A failing source does not stop the sensors of other sources or the cameras.
        """
        while True:
            started_s = self._clock.monotonic()
            try:
                await self._source.run(self)
                reason = "the source has ended"
            except SourceError as error:
                reason = str(error)
            except Exception as error:  # a fault of a library at one device
                reason = repr(error)
                _log.exception("sensor_source_failed", source=self.name)
            for sensor in self.sensors:
                sensor.lost(reason)
            self._metrics.source_restarts.labels(self.name).inc()
            if self._clock.monotonic() - started_s >= STEADY_S:
                self._backoff.steady(started_s)
            await asyncio.sleep(self._backoff.failed(started_s, self._chance()))
