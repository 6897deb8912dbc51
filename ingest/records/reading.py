"""Sensor readings in columns."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import model_validator

from ingest.records.base import Count, Name, Record

__all__ = ["GOOD", "SUSPECT", "Readings"]

GOOD = 0
SUSPECT = 1
"""Quality flags of a reading, as the device reports them."""


class Readings(Record):
    """A run of readings of one sensor: parallel columns of equal length, at least one row.

    ``seq`` is the first reading's number; the others follow without holes. ``unit`` is a UCUM symbol, e.g. ``Cel``.
    """

    KIND: ClassVar[str] = "readings"

    sensor: Name
    epoch: Count
    seq: Count
    site: str = ""
    quantity: str
    unit: str
    times_ns: tuple[Count, ...]
    values: tuple[float, ...]
    quality: tuple[Count, ...]

    @model_validator(mode="after")
    def _columns_are_parallel(self) -> Self:
        lengths = {len(self.times_ns), len(self.values), len(self.quality)}
        if len(lengths) != 1 or not self.times_ns:
            raise ValueError(f"columns have lengths {sorted(lengths)}: expected one length, at least 1")
        return self
