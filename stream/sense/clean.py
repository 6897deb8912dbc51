"""Which readings count. Pure."""

from __future__ import annotations

from collections import Counter

from ingest.contract.records import GOOD, Readings
from ingest.site import SensorConfig


class Cleaner:
    """Leaves out repeats and what the sensor cannot have measured; ``dropped`` counts them by reason.

    ``repeat`` was there before, ``old-epoch`` is from before the device's last start, ``suspect`` is so by its own
    account, and ``range`` is outside of what the sensor can measure.
    """

    def __init__(self, config: SensorConfig | None) -> None:
        self._low = config.low if config else float("-inf")
        self._high = config.high if config else float("inf")
        self._mark: tuple[int, int] = (-1, -1)
        self.dropped: Counter[str] = Counter()

    @property
    def epoch(self) -> int:
        """The highest epoch so far, -1 before the first reading."""
        return self._mark[0]

    def clean(self, readings: Readings) -> list[tuple[int, float]]:
        """Return the readings that count, as (Unix ns, value)."""
        kept: list[tuple[int, float]] = []
        for row, (at_ns, value, quality) in enumerate(
            zip(readings.times_ns, readings.values, readings.quality, strict=True)
        ):
            position = (readings.epoch, readings.seq + row)
            reason = self._reason(position, value, quality)
            if reason:
                self.dropped[reason] += 1
            else:
                kept.append((at_ns, value))
            self._mark = max(self._mark, position)
        return kept

    def _reason(self, position: tuple[int, int], value: float, quality: int) -> str:
        if position <= self._mark:
            return "repeat" if position[0] == self.epoch else "old-epoch"
        if quality != GOOD:
            return "suspect"
        if not self._low <= value <= self._high:  # also what is no number at all
            return "range"
        return ""
