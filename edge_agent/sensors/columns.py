"""Readings gathered into columns, so that a number does not travel in a record of its own. Pure."""

from __future__ import annotations

from ingest.records import GOOD, Readings
from ingest.site import SensorConfig

__all__ = ["Columns"]


class Columns:
    """Gathers readings until there are enough of them, or the first has waited long enough."""

    def __init__(self, config: SensorConfig, epoch: int) -> None:
        self._config, self._epoch = config, epoch
        self._times: list[int] = []
        self._values: list[float] = []
        self._next = 0

    def add(self, at_ns: int, value: float) -> Readings | None:
        """Take one reading and return the columns when they are full."""
        self._times.append(at_ns)
        self._values.append(value)
        full = len(self._values) >= self._config.column_rows
        waited = at_ns - self._times[0] >= self._config.max_delay_s * 1e9
        return self.close() if full or waited else None

    def close(self) -> Readings | None:
        """Return what has been gathered, None when that is nothing."""
        if not self._values:
            return None
        readings = Readings(
            sensor=self._config.name,
            epoch=self._epoch,
            seq=self._next,
            site=self._config.site,
            quantity=self._config.quantity,
            unit=self._config.unit,
            times_ns=tuple(self._times),
            values=tuple(self._values),
            quality=(GOOD,) * len(self._values),
        )
        self._next += len(self._values)
        self._times, self._values = [], []
        return readings
