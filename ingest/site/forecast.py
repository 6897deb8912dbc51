"""Configuration of forecasts: which value of a measure is forecast, and by which model."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from ingest.contract.records.base import Name
from ingest.site.entry import Share, SharedEntry
from ingest.site.hours import TimeZone


class ForecastConfig(SharedEntry):
    """A forecast of one value of a measure, after each step, on the topic ``forecasts``."""

    KIND: ClassVar[str] = "forecast"

    measure: Name
    value: str = Field(min_length=1, max_length=200)
    """Name of the measure's value to forecast, such as ``car.forward``."""
    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(@[0-9]+)?$")]
    """``NAME`` or ``NAME@VERSION`` of a model that `sightline train forecast` stored. ``NAME`` stands for the
    promoted version of the model."""
    level: Annotated[float, Field(ge=0.5, le=0.99)] = 0.9
    """Probability with which a measured value is within its prediction interval."""
    min_observed: Share = 0.5
    """Share of the last time steps that must be observed for a forecast. If fewer steps were observed, the forecast
    record has the reason instead of values."""
    time_zone: TimeZone | None = None
    """Time zone of the daily profile; the site's time zone by default."""
