"""The filters of one sensor's readings: repeats, quality, range, unit, rate of change and outliers. Pure.

The filters process whole columns, and give the same results as a loop over single readings.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Protocol

import numpy as np

from ingest.contract.records import GOOD, Readings
from ingest.site import HampelConfig, SensorConfig, conversion
from stream.epochs import Admission, EpochGate
from stream.sense.windows import Column

RATE_IN_A_ROW = 5
"""After this number of consecutive readings that change too fast, the last of these readings is kept. Five
consecutive readings that change too fast show a real step of the quantity, or show that the last kept reading was
wrong."""
MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution, in median absolute deviations."""


class ColumnFilter(Protocol):
    """A filter with a state over the readings of one sensor."""

    REASON: str
    """Name of the filter under which the readings that it dropped are counted."""

    def kept(self, column: Column) -> Sequence[bool] | None:
        """Return for each reading of the next column whether it is kept; None if all readings are kept."""


class RateFilter:
    """Drops readings that differ from the last kept reading by more than the quantity can change in the meantime.

    A reading with an earlier time than the last kept reading is kept, because the sensor's clock was set back.
    """

    REASON = "rate"

    def __init__(self, max_rate: float) -> None:
        self._per_ns = max_rate / 1e9
        self._last: tuple[int, float] | None = None
        self._dropped_in_a_row = 0

    def kept(self, column: Column) -> Sequence[bool] | None:
        """Return for each reading whether it is kept; None if all are kept."""
        last = self._last or (column.times_ns[0], column.values[0])
        passed_ns = np.diff(np.array((last[0], *column.times_ns), np.int64))
        changes = np.abs(np.diff(np.array((last[1], *column.values))))
        if not np.any((passed_ns >= 0) & (changes > self._per_ns * passed_ns)):
            self._last, self._dropped_in_a_row = (column.times_ns[-1], column.values[-1]), 0
            return None
        return [self._keeps(at_ns, value) for at_ns, value in zip(*column, strict=True)]

    def _keeps(self, at_ns: int, value: float) -> bool:
        last_ns, last = self._last or (at_ns, value)
        passed_ns = at_ns - last_ns
        too_fast = passed_ns >= 0 and abs(value - last) > self._per_ns * passed_ns
        if too_fast and self._dropped_in_a_row + 1 < RATE_IN_A_ROW:
            self._dropped_in_a_row += 1
            return False
        self._last, self._dropped_in_a_row = (at_ns, value), 0
        return True


class HampelFilter:
    """Drops outliers: readings far from the median of the readings just before them.

    The window ends with the present reading, so that a reading does not wait for later ones. The window also contains
    outliers, so a real step of the quantity is accepted after half a window. The first readings are kept until the
    window is full.
    """

    REASON = "outlier"

    def __init__(self, config: HampelConfig) -> None:
        self._size = config.readings
        self._limit = config.limit * MAD_TO_SIGMA
        self._min_deviation = config.min_deviation
        self._before: tuple[float, ...] = ()

    def kept(self, column: Column) -> Sequence[bool] | None:
        """Return for each reading whether it is kept; None if all are kept."""
        values = (*self._before, *column.values)
        self._before = values[1 - self._size :]
        if len(values) < self._size:
            return None
        windows = np.lib.stride_tricks.sliding_window_view(np.array(values), self._size)
        medians = np.median(windows, axis=1)
        deviations = np.abs(windows - medians[:, None])
        limits = np.maximum(self._limit * np.median(deviations, axis=1), self._min_deviation)
        good = (deviations[:, -1] <= limits)[-len(column.values) :]
        if good.all():
            return None
        kept: list[bool] = good.tolist()
        return [True] * (len(column.values) - len(good)) + kept


class Cleaner:
    """A filter that drops repeated, impossible and doubtful readings. ``dropped`` counts the dropped readings by
    reason.

    ``repeat``: the reading was processed before. ``old-epoch``: the reading's epoch is lower than the present epoch,
    which still runs (see ``EpochGate``). ``suspect``: the device has marked the reading as suspect. ``range``: the
    value is outside of the range that the sensor can measure. ``rate``: the value has changed faster than
    ``max_rate``. ``outlier``: the Hampel filter has found an outlier.
    """

    def __init__(self, config: SensorConfig | None) -> None:
        self._gate = EpochGate()
        self.dropped: Counter[str] = Counter()
        self._set(config)

    def use(self, config: SensorConfig | None) -> None:
        """Use another configuration from now on. The filters begin anew if the configuration has changed."""
        if config != self._config:
            self._set(config)

    def _set(self, config: SensorConfig | None) -> None:
        self._config = config
        self._low = config.low if config else float("-inf")
        self._high = config.high if config else float("inf")
        self._filters: list[ColumnFilter] = []
        if config and config.max_rate is not None:
            self._filters.append(RateFilter(config.max_rate))
        if config and config.hampel:
            self._filters.append(HampelFilter(config.hampel))
        self._conversion = conversion(config.unit, config.convert_to) if config and config.convert_to else None

    @property
    def epoch(self) -> int:
        """The present epoch, -1 before the first reading."""
        return self._gate.present

    def clean(self, readings: Readings, written_ms: int) -> Column:
        """Return the readings that are not dropped, in the unit that rules see.

        ``written_ms`` is the Unix time in ms at which the record of the readings was written.
        """
        times_ns, values, quality = readings.times_ns, readings.values, readings.quality
        before, last = self._gate.last(readings.epoch), readings.seq + len(values) - 1
        admission = self._gate.admit(readings.epoch, last, written_ms * 1_000_000, sensor=readings.sensor)
        if before >= readings.seq:
            repeats = min(before + 1 - readings.seq, len(values))
            self._drop("repeat", repeats)
            times_ns, values, quality = times_ns[repeats:], values[repeats:], quality[repeats:]
        if admission is Admission.LOWER:
            self._drop("old-epoch", len(values))
            return Column((), ())
        column = Column(times_ns, values)
        if not self._are_usable(values, quality):
            column = self._filtered(column, quality)
        if self._conversion and column.values:
            scale, offset = self._conversion
            column = Column(column.times_ns, tuple((np.array(column.values) * scale + offset).tolist()))
        for one in self._filters:
            kept = one.kept(column) if column.values else None
            if kept is not None:
                self._drop(one.REASON, len(column.values) - sum(kept))
                column = _selected(column, kept)
        return column

    def _are_usable(self, values: Sequence[float], quality: Sequence[int]) -> bool:
        """Return whether all readings can be kept: none is flagged, and all values are within the range. If a value
        is NaN, the sum of the values is NaN, and the result is False."""
        if not values:
            return True
        return (
            not any(quality) and not math.isnan(sum(values)) and self._low <= min(values) <= max(values) <= self._high
        )

    def _filtered(self, column: Column, quality: Sequence[int]) -> Column:
        """Drop suspect readings and readings outside of the sensor's range."""
        good, values = np.array(quality) == GOOD, np.array(column.values)
        in_range = (self._low <= values) & (values <= self._high)  # NaN is outside of every range
        kept = (good & in_range).tolist()
        self._drop("suspect", int(np.count_nonzero(~good)))
        self._drop("range", int(np.count_nonzero(good & ~in_range)))
        return _selected(column, kept)

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] += count


def _selected(column: Column, kept: Iterable[bool]) -> Column:
    selectors = tuple(kept)
    return Column(tuple(compress(column.times_ns, selectors)), tuple(compress(column.values, selectors)))
