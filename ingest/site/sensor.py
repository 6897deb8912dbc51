"""A sensor of a site."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ingest.site.entry import Entry, Seconds

__all__ = ["SensorConfig"]


class SensorConfig(Entry):
    """A sensor. ``source`` is ``simulated:KIND``."""

    KIND: ClassVar[str] = "sensor"

    source: str
    site: str = ""
    quantity: str
    unit: str
    rate_hz: float = Field(default=10.0, gt=0.0)
    low: float = -1e9
    high: float = 1e9
    """The sensor's physical range: readings outside it are dropped as faulty, and counted."""
    column_rows: int = Field(default=100, ge=1, le=10_000)
    max_delay_s: Seconds = 2.0
    options: dict[str, str | int | float | bool] = {}
