"""Forecasts of a measure, with prediction intervals and with the skill of earlier forecasts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ingest.contract.records.base import Count, Id, Many, Name, Record

MAX_HORIZONS = 48


class ForecastPoint(Record):
    """The forecast of one step. Value and bounds are in the unit of the measure, per step."""

    KIND: ClassVar[str] = "forecast-point"

    horizon: int = Field(ge=1, le=MAX_HORIZONS)
    """Number of steps between the last observed step and this step."""
    start_ns: Count
    """Start of the step in Unix ns."""
    value: float
    lower: float | None = None
    upper: float | None = None
    """Bounds of the prediction interval; None while there are too few errors for one."""


class ForecastSkill(Record):
    """Errors of the forecasts that were made for the steps of the last day, at one horizon."""

    KIND: ClassVar[str] = "forecast-skill"

    horizon: int = Field(ge=1, le=MAX_HORIZONS)
    steps: Count
    """Number of steps whose value could be compared."""
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
    """The forecast of the next steps of a series, made after each step.

    ``points`` is empty when too little was observed. ``reason`` then has the cause.
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
    """Probability with which a value is within its interval."""
    observed: float = Field(ge=0.0, le=1.0)
    """Share of the last steps that were observed, of those that the model gets one by one."""
    reason: str = ""
    points: Annotated[Many[ForecastPoint], Field(max_length=MAX_HORIZONS)] = ()
    skill: Annotated[Many[ForecastSkill], Field(max_length=MAX_HORIZONS)] = ()
    drift: float = 0.0
    """Cumulative sum of the latest errors above those of the training."""
    drift_limit: float = 0.0
    """The model has drifted while ``drift`` exceeds this limit."""

    @property
    def drifting(self) -> bool:
        """Whether the errors are larger than in the training."""
        return self.drift > self.drift_limit
