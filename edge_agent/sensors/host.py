"""The machine that the agent runs on, as a sensor."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

import psutil

from edge_agent.exceptions import SensorSilent
from edge_agent.sensors.polling import poll
from edge_agent.sensors.source import Reading, Sink
from ingest.clock import Clock
from ingest.site import SensorConfig
from ingest.site.sensoroptions import HostOptions

__all__ = ["HostSource"]


class HostSource:
    """One figure of this machine: ``cpu`` and ``memory`` in %, ``load`` of 1 min, ``temperature`` in °C, ``disk``.

    ``disk`` is what is free for us at a path, in bytes. A machine that does not tell something is silent about it.
    """

    def __init__(self, sensor: SensorConfig, clock: Clock) -> None:
        self._sensor, self._clock = sensor, clock
        self._options = cast(HostOptions, sensor.parsed)
        self._figure = {
            "cpu": lambda: psutil.cpu_percent(None),
            "memory": lambda: psutil.virtual_memory().percent,
            "load": lambda: psutil.getloadavg()[0],
            "temperature": lambda: _temperature(self._options.label),
            "disk": lambda: _free_bytes(self._options.path),
        }[sensor.address]

    async def run(self, sink: Sink) -> None:
        """Give readings until cancelled."""
        psutil.cpu_percent(None)  # a share is of the time since the last call: the first says nothing
        await poll([self._sensor], self._ask, sink, self._clock)

    async def _ask(self, _: SensorConfig, __: int) -> Reading:
        try:
            # a file system behind a network may hang, and nothing else may wait for it
            return Reading(float(await asyncio.to_thread(self._figure)))
        except (OSError, ValueError) as error:
            raise SensorSilent(str(error)) from None


def _temperature(label: str) -> float:
    found = [
        reading.current
        for chip, readings in psutil.sensors_temperatures().items()
        for reading in readings
        if not label or label in (chip, reading.label)
    ]
    if not found:
        raise ValueError(f"this machine tells no temperature of {label or 'anything'}")
    return max(found)


def _free_bytes(path: Path) -> float:
    return float(psutil.disk_usage(str(path)).free)
