"""The description of a series that a forecast model carries: its steps, scale, profile and calibration. Pure."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

DAY_S = 86_400
_HALF_HOUR_S = 1800
WEEKDAYS = 7
METADATA = "sightline.forecast"
"""Key of the description among the metadata of the ONNX file."""
_ANSCOMBE = 0.375
"""Constant of Anscombe's transformation (1948), which gives Poisson counts a standard deviation of about 1."""

Scale = Literal["count", "linear"]
Numbers = tuple[float, ...]


class SeriesSpec(BaseModel):
    """The description of a series that a forecast model needs.

    The model forecasts scaled residuals: the scaled value of a time step minus the scaled daily profile, which is the
    usual value at each time of day, for each weekday. The residual of a count has a standard deviation near 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step_s: int = Field(ge=60, le=DAY_S)
    """Length of a time step of the series in seconds. A day is a whole number of steps, and a step a whole number of
    minutes."""
    lags: int = Field(default=12, ge=1, le=288)
    """Number of latest time steps that the model takes as single inputs."""
    horizons: int = Field(default=12, ge=1, le=48)
    """Number of time steps that the model forecasts."""
    scale: Scale = "count"
    """``count`` scales counts by Anscombe's square root. ``linear`` divides any other number by ``unit``."""
    unit: float = Field(default=1.0, gt=0.0)
    profile: Annotated[tuple[Numbers, ...], Field(min_length=WEEKDAYS, max_length=WEEKDAYS)]
    """Scaled profile by weekday, Monday first, and by step of the day in local time."""
    scores: tuple[Numbers, ...] = ()
    """Absolute errors of the model on days that it had not seen, in scaled units, by horizon, oldest first. The first
    prediction intervals after the start are made from these errors."""
    drift_limit: float = Field(default=10.0, gt=0.0)
    """The forecast has drifted when the cumulative sum of its errors, ``drift_sum``, exceeds this limit."""
    model: str = ""
    """Kind of the forecast model, such as ``gbt``."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if DAY_S % self.step_s or self.step_s % 60:
            raise ValueError(f"expected step_s to be whole minutes and to divide a day, not {self.step_s}")
        if {len(row) for row in self.profile} != {self.slots}:
            raise ValueError(f"expected a profile of {self.slots} values for each weekday")
        if self.scores and len(self.scores) != self.horizons:
            raise ValueError(f"expected scores of {self.horizons} horizons, not {len(self.scores)}")
        return self

    @property
    def slots(self) -> int:
        """Number of time steps in a day."""
        return DAY_S // self.step_s

    def seasonal_lag(self, horizon: int) -> int:
        """Return the number of time steps from the latest known step at the same time of day to the forecast step:
        one day, or more days if ``horizon`` steps take longer than a day."""
        return -(-horizon // self.slots) * self.slots

    def scaled(self, values: Array) -> Array:
        """Return the values of a series in scaled units. NaN stays NaN."""
        if self.scale == "count":
            return np.asarray(2.0 * np.sqrt(np.maximum(values, 0.0) + _ANSCOMBE))
        return values / self.unit

    def unscaled(self, scaled: Array) -> Array:
        """Return the values of a series from values in scaled units. The returned counts are at least 0."""
        if self.scale == "count":
            return np.maximum(np.maximum(scaled, 0.0) ** 2 / 4.0 - _ANSCOMBE, 0.0)
        return scaled * self.unit

    def expected(self, slots: Counts, weekdays: Counts) -> Array:
        """Return the scaled profile at the steps of the day ``slots`` on ``weekdays``."""
        return _table(self)[weekdays, slots]


@functools.lru_cache(maxsize=64)
def _table(spec: SeriesSpec) -> Array:
    return np.array(spec.profile)


def local_steps(first: int, count: int, step_s: int, time_zone: str) -> tuple[Counts, Counts]:
    """Return the step of the day and the weekday of ``count`` time steps in local time; Monday is 0.

    ``first`` is the number of the first time step since the Unix epoch.
    """
    numbers = np.arange(first, first + count, dtype=np.int64)
    # one look at the time zone per half hour of UTC, because clocks change at a full one
    halves, places = np.unique(numbers * step_s // _HALF_HOUR_S, return_inverse=True)
    shifts = np.array([_offset_s(int(half), time_zone) for half in halves], np.int64)
    local_s = numbers * step_s + shifts[places]
    return local_s % DAY_S // step_s, (local_s // DAY_S + 3) % WEEKDAYS  # 1 January 1970 was a Thursday


@functools.lru_cache(maxsize=10_000)
def _offset_s(half_hour: int, time_zone: str) -> int:
    """Return the offset of local time from UTC in seconds, at a half hour that is counted from the Unix epoch."""
    at = datetime.fromtimestamp(half_hour * _HALF_HOUR_S, UTC).astimezone(ZoneInfo(time_zone))
    offset: Any = at.utcoffset()
    return int(offset.total_seconds())
