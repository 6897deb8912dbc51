"""The time steps of a series, combined from the minutes of a measure. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple, Self

import numpy as np

from ingest.contract.identity import LATE
from ingest.contract.records.measure import Measure
from stream.sense.forecast.spec import Array

Aggregate = Literal["sum", "mean"]
MIN_OBSERVED = 0.5
"""Smallest share of a time step that must be observed. A time step of which a smaller share was observed counts as
not observed."""
_MINUTE_NS = 60 * 10**9


def aggregate_of(value: str) -> Aggregate:
    """Return whether the minutes of a measure's value are added or averaged: counts are added, and means, maxima,
    densities and levels of service are averaged."""
    is_mean = value.endswith((".mean", ".max", ".per_km_lane")) or value == "level_of_service"
    return "mean" if is_mean else "sum"


def is_late(measure: Measure) -> bool:
    """Return whether all frames of a measure's minute came late."""
    return measure.parts.keys() == {LATE}


class MinuteValue(NamedTuple):
    """The value of a measure in one minute. ``minute`` counts from the Unix epoch, ``value`` is None if the minute
    has no value, and ``observed`` is the observed share of the minute. ``late`` says that all frames of the minute
    came late, after an outage of the agent's connection."""

    minute: int
    value: float | None
    observed: float
    revision: int = 0
    late: bool = False

    @classmethod
    def of(cls, measure: Measure, value: str) -> Self:
        """Return the value ``value`` of a measure's record, with the minute that the record is about."""
        found = measure.values.get(value)
        return cls(measure.start_ns // _MINUTE_NS, found, measure.observed, measure.revision, is_late(measure))


class Steps:
    """The minutes of a series, combined to the values of longer time steps.

    A sum over a partly observed step is divided by the observed share of the step. A mean over the minutes of a step
    is weighted by their observed shares. An observed minute without a value adds 0 to a sum, and is left out of a
    mean.
    """

    def __init__(self, step_s: int, aggregate: Aggregate) -> None:
        self._minutes_per_step = step_s // 60
        self._aggregate = aggregate
        self._minutes: dict[int, MinuteValue] = {}
        self._values: dict[int, float] = {}
        """Values of time steps that were combined since the last change of the step's minutes."""

    def add(self, minute: MinuteValue) -> None:
        """Add a minute of the series, or replace the minute by its later revision."""
        self._minutes[minute.minute] = minute
        self._values.pop(minute.minute // self._minutes_per_step, None)

    def drop_before(self, step: int) -> None:
        """Drop the minutes of the time steps before ``step``."""
        bound = step * self._minutes_per_step
        for minute in [one for one in self._minutes if one < bound]:
            del self._minutes[minute]
        for known in [one for one in self._values if one < step]:
            del self._values[known]

    def value(self, step: int) -> float:
        """Return the value of a time step; NaN if less than ``MIN_OBSERVED`` of the step was observed."""
        if step not in self._values:
            self._values[step] = self._combined(step)
        return self._values[step]

    def _combined(self, step: int) -> float:
        first = step * self._minutes_per_step
        minutes = range(first, first + self._minutes_per_step)
        seen = [one for minute in minutes if (one := self._minutes.get(minute)) and one.observed > 0.0]
        missing = 0.0 if self._aggregate == "sum" else None
        found = [(missing if one.value is None else one.value, one.observed) for one in seen]
        known = [(value, share) for value, share in found if value is not None]
        observed = sum(share for _, share in known)
        if observed < MIN_OBSERVED * self._minutes_per_step:
            return float("nan")
        if self._aggregate == "mean":
            return sum(value * share for value, share in known) / observed
        return sum(value for value, _ in known) * self._minutes_per_step / observed

    def values(self, first: int, last: int) -> Array:
        """Return the values of the time steps from ``first`` to ``last``, both included."""
        return np.array([self.value(step) for step in range(first, last + 1)])
