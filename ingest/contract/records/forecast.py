"""Forecasts of a measure, with prediction intervals and with the skill of earlier forecasts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ingest.contract.records.base import Count, Id, Many, Name, Record

MAX_HORIZONS = 48


class ForecastPoint(Record):
    """The forecast value of one time step of a measure. Value and bounds of the forecast are in the unit of the
    measure, per time step."""

    KIND: ClassVar[str] = "forecast-point"

    horizon: int = Field(ge=1, le=MAX_HORIZONS)
    """Number of time steps from the last observed step to the forecast step."""
    start_ns: Count
    """Start of the forecast time step in Unix ns."""
    value: float
    lower: float | None = None
    upper: float | None = None
    """Bounds of the prediction interval; None while too few forecast errors are known for an interval."""


class ForecastSkill(Record):
    """Errors of a model's forecasts for the time steps of the last day, all made the same number of steps ahead."""

    KIND: ClassVar[str] = "forecast-skill"

    horizon: int = Field(ge=1, le=MAX_HORIZONS)
    steps: Count
    """Number of time steps whose measured and forecast values could be compared."""
    mae: float
    """Mean absolute error."""
    naive_mae: float
    """Mean absolute error of the seasonal naive forecast: the value of the day before."""
    covered: float = Field(ge=0.0, le=1.0)
    """Share of the values that were within the prediction interval."""

    @property
    def ratio(self) -> float | None:
        """Error of the model divided by the error of the seasonal naive forecast; below 1 the model is better."""
        return self.mae / self.naive_mae if self.naive_mae > 0.0 else None


class Forecast(Record):
    """A forecast of the next time steps of a measure's value, written after each time step.

    If too little was observed for a forecast, ``points`` is empty. ``reason`` says why ``points`` is empty, and is ""
    otherwise.
    """

    KIND: ClassVar[str] = "forecast"

    id: Id
    name: Name
    measure: Name
    value: str
    """Name of the forecast value of the measure, such as ``car.forward``."""
    site: str = ""
    camera: Name
    model: str
    """Name and version of the model: ``NAME@VERSION``."""
    made_ns: Count
    """End of the last observed step in Unix ns, by the camera's clock."""
    step_s: int = Field(gt=0)
    level: float = Field(gt=0.0, lt=1.0)
    """Probability with which a measured value is within its prediction interval."""
    observed: float = Field(ge=0.0, le=1.0)
    """Share of observed steps among the last steps that the model takes as single inputs."""
    reason: str = ""
    points: Annotated[Many[ForecastPoint], Field(max_length=MAX_HORIZONS)] = ()
    skill: Annotated[Many[ForecastSkill], Field(max_length=MAX_HORIZONS)] = ()
    drift: float = 0.0
    """Cumulative sum of the latest errors, each less the mean error in the training and a slack."""
    drift_limit: float = 0.0
    """The errors of the forecast have drifted while ``drift`` exceeds this limit."""

    @property
    def drifting(self) -> bool:
        """Whether the errors of the forecast are larger than in the training of its model."""
        return self.drift > self.drift_limit
