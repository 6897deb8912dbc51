"""Simulated temperature sensor: a slow wave, noise, hot spells and faulty readings."""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from edge_agent.sensors.source import Reading, Sink
from edge_agent.sensors.sources.polling import poll
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig
from ingest.site.sensor import SimulatedOptions

_WAVE_S = 40.0
"""Period of the slow temperature wave (one simulated day), in seconds. The period is short, so that a demonstration
of a few minutes shows several simulated days."""
_SPELL_S = 25.0
_SPELL_LASTS_S = 6.0


class SimulatedSensorSource:
    """Simulated cabinet temperature: 35 ± 8 °C, hot spells of about 70 °C, and a few impossible values of ±999 °C."""

    def __init__(self, sensor: SensorConfig, clock: Clock) -> None:
        self._sensor, self._clock = sensor, clock
        self._seed = cast(SimulatedOptions, sensor.parsed).seed

    async def run(self, sink: Sink) -> None:
        """Pass readings to ``sink`` until cancelled."""
        await poll([self._sensor], self._ask, sink, self._clock)

    async def _ask(self, sensor: SensorConfig, index: int) -> Reading:
        """Return the reading with the given index, counted from 0. The value depends only on seed, rate and index."""
        at_s, rng = index / sensor.rate_hz, np.random.default_rng([self._seed, index])
        if rng.random() < 0.005:
            return Reading(float(rng.choice((-999.0, 999.0))))  # a loose wire
        spell = 34.0 if at_s % _SPELL_S > _SPELL_S - _SPELL_LASTS_S else 0.0
        wave = 8.0 * math.sin(2 * math.pi * at_s / _WAVE_S)
        return Reading(float(round(35.0 + wave + spell + rng.normal(0.0, 0.4), 2)))
