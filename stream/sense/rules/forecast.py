"""Rule ``forecast``: a value of a measure is forecast to pass a bound. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.records import Forecast, ForecastPoint
from ingest.contract.records.forecast import MAX_HORIZONS
from stream.rules import Happening
from stream.sense.forecast.rule import ForecastingRule


class EarlyWarningRule(ForecastingRule):
    """Report once when a value is forecast to be above or below a bound for some steps in a row.

    The rule compares the forecast values with the bound, or with ``compare = "interval"`` the whole prediction
    intervals. The situation ends with the first forecast that does not pass the bound for ``steps`` steps.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.forecast.passed"

    type: Literal["forecast"] = "forecast"
    above: float | None = None
    below: float | None = None
    steps: int = Field(default=3, ge=1, le=MAX_HORIZONS)
    """Number of forecast time steps in a row that must be beyond the bound."""
    compare: Literal["value", "interval"] = "value"

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("expected above or below, and not both")
        return self

    def happening(self, forecast: Forecast) -> Happening | None:
        """Return the situation if ``steps`` forecast time steps in a row are beyond the bound."""
        run: list[ForecastPoint] = []
        for point in forecast.points:
            run = [*run, point] if self._is_beyond(point) else []
            if len(run) == self.steps:
                return self._found(forecast, run[0])
        return None

    def _is_beyond(self, point: ForecastPoint) -> bool:
        if self.above is not None:
            value = point.lower if self.compare == "interval" else point.value
            return value is not None and value > self.above
        value = point.upper if self.compare == "interval" else point.value
        return value is not None and self.below is not None and value < self.below

    def _found(self, forecast: Forecast, first: ForecastPoint) -> Happening:
        side, bound = ("above", self.above) if self.above is not None else ("below", self.below)
        minutes = (first.horizon - 1) * forecast.step_s / 60
        details: dict[str, str | bool | int | float] = {
            "forecast": forecast.name,
            "value": first.value,
            "in_minutes": minutes,
            "steps": self.steps,
            "model": forecast.model,
        }
        if first.lower is not None and first.upper is not None:
            details |= {"lower": first.lower, "upper": first.upper}
        return Happening(
            summary=f"{forecast.value} of {forecast.measure} is forecast to be {side} {bound:g} in {minutes:g} min: "
            f"{first.value:g}",
            details=details,
        )
