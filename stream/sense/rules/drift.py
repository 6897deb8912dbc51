"""Rule ``drift``: the errors of a forecast are larger than in the training of its model. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal

from ingest.contract.records import Forecast
from stream.rules import Happening
from stream.sense.forecast.rule import ForecastingRule


class DriftRule(ForecastingRule):
    """Report once that a forecast has drifted: its errors exceed the errors in the training of its model for longer
    than by chance.

    The drift ends when the errors of the last day are as in the training. If the drift lasts, train a new model of
    the series.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.forecast.drifted"

    type: Literal["drift"] = "drift"

    def happening(self, forecast: Forecast) -> Happening | None:
        """Return the situation if the errors of the forecast have drifted."""
        if not forecast.drifting:
            return None
        details: dict[str, str | bool | int | float] = {
            "forecast": forecast.name,
            "drift": forecast.drift,
            "drift_limit": forecast.drift_limit,
            "model": forecast.model,
        }
        if forecast.skill:
            details |= {"mae": forecast.skill[0].mae, "covered": forecast.skill[0].covered}
        return Happening(
            summary=f"the forecast {forecast.name} has drifted: its errors are larger than in the training of "
            f"{forecast.model}",
            details=details,
        )
