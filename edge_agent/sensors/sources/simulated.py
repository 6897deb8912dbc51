"""A simulated sensor: a slow wave, noise, hot spells, faulty readings. A reading depends on its number only."""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from edge_agent.sensors.source import Reading, Sink
from edge_agent.sensors.sources.polling import poll
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig
from ingest.site.sensoroptions import SimulatedOptions

_WAVE_S = 40.0
"""A day in forty seconds, so that a demonstration sees one."""
_SPELL_S = 25.0
_SPELL_LASTS_S = 6.0


class SimulatedSensor:
    """A cabinet's temperature in °C: 35 ± 8, hot spells of 70, and now and then a reading that cannot be."""

    def __init__(self, seed: int, rate_hz: float) -> None:
        self._seed, self._rate_hz = seed, rate_hz

    def value(self, index: int) -> float:
        """Return the reading with this number, from 0."""
        at_s = index / self._rate_hz
        rng = np.random.default_rng([self._seed, index])
        if rng.random() < 0.005:
            return float(rng.choice((-999.0, 999.0)))  # a loose wire
        spell = 34.0 if at_s % _SPELL_S > _SPELL_S - _SPELL_LASTS_S else 0.0
        return float(round(35.0 + 8.0 * math.sin(2 * math.pi * at_s / _WAVE_S) + spell + rng.normal(0.0, 0.4), 2))


class SimulatedSource:
    """A sensor that needs no device, asked at its rate."""

    def __init__(self, sensor: SensorConfig, clock: Clock) -> None:
        self._sensor, self._clock = sensor, clock
        self._device = SimulatedSensor(cast(SimulatedOptions, sensor.parsed).seed, sensor.rate_hz)

    async def run(self, sink: Sink) -> None:
        """Give readings until cancelled."""
        await poll([self._sensor], self._ask, sink, self._clock)

    async def _ask(self, _: SensorConfig, index: int) -> Reading:
        return Reading(self._device.value(index))
