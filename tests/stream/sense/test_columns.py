"""Tests that columns of readings are cleaned and added to windows as a plain loop over single readings would."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.records import GOOD, OUT_OF_RANGE, SUSPECT, Readings
from ingest.site import ALLOWED_LATENESS_S, SensorConfig
from stream.sense.clean import Cleaner
from stream.sense.windows import (
    LATE_IN_A_ROW,
    SPARE_WINDOWS,
    Column,
    ReadingWindow,
    TumblingWindows,
)

SENSOR = SensorConfig(name="t", source="simulated:t", quantity="temperature", unit="Cel", low=-40, high=100)
STEP_NS = 100_000_000
LENGTH_NS = 10 * STEP_NS


class PlainWindows:
    """The reference: tumbling windows of one second that process one reading at a time."""

    def __init__(self) -> None:
        self.open: dict[int, ReadingWindow] = {}
        self.closed_before_ns = 0
        self.late_in_a_row = 0
        self.epoch_begins = False
        self.late = 0
        self.set_back = 0

    def add(self, at_ns: int, value: float) -> list[ReadingWindow]:
        start_ns = at_ns - at_ns % LENGTH_NS
        if self.is_late(start_ns):
            self.late += 1
            return []
        window = self.open.setdefault(start_ns, ReadingWindow(start_ns))
        window.count += 1
        window.total += value
        bound_ns = at_ns - round(ALLOWED_LATENESS_S * 1e9) - LENGTH_NS
        done = sorted(start for start in self.open if start <= bound_ns)
        if done:
            self.closed_before_ns = done[-1] + LENGTH_NS
        return [self.open.pop(start) for start in done]

    def is_late(self, start_ns: int) -> bool:
        late = start_ns < self.closed_before_ns
        self.late_in_a_row = self.late_in_a_row + 1 if late else 0
        if late and (self.epoch_begins or self.late_in_a_row >= LATE_IN_A_ROW):
            self.open.clear()
            self.closed_before_ns = self.late_in_a_row = 0
            self.set_back += 1
            late = False
        self.epoch_begins = False
        return late


values = st.floats(-1e9, 1e9)
any_order = st.lists(st.tuples(st.integers(0, 200).map(lambda step: step * STEP_NS), values), max_size=120)
in_order = any_order.map(lambda rows: sorted(rows, key=lambda row: row[0]))
set_back = st.tuples(in_order, in_order).map(lambda runs: [*runs[0], *runs[1]])


@given(
    rows=st.one_of(any_order, in_order, set_back),
    cuts=st.lists(st.integers(0, 240), max_size=6),
    epochs=st.sets(st.integers(0, 6)),
)
def test_readings_added_as_arrays_give_the_same_windows_as_single_readings_in_the_same_order(
    rows: list[tuple[int, float]], cuts: list[int], epochs: set[int]
) -> None:
    """The sums are equal to the last bit: they are added in the same order."""
    plain, columns = PlainWindows(), TumblingWindows(1.0)
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for number, (begin, end) in enumerate(itertools.pairwise(edges)):
        if number in epochs:
            plain.epoch_begins = True
            columns.begin_epoch()
        part = rows[begin:end]
        closed = columns.add(Column([at_ns for at_ns, _ in part], [value for _, value in part]))
        assert closed == [window for at_ns, value in part for window in plain.add(at_ns, value)]
        assert columns._open == plain.open
    assert (columns.late, columns.set_back) == (plain.late, plain.set_back)


def test_an_empty_array_of_readings_changes_no_window() -> None:
    windows = TumblingWindows(1.0)
    windows.begin_epoch()
    assert windows.add(Column([], [])) == []
    assert windows._epoch_begins


def test_all_readings_belong_to_one_window_if_the_window_is_longer_than_any_timestamp() -> None:
    windows = TumblingWindows(1e12)
    assert windows.add(Column([0, 2**63 - 1], [1.0, 2.0])) == []
    assert windows.due(2 * 10**21) == [replace(ReadingWindow(0), count=2, total=3.0, seen=2)]


@pytest.mark.parametrize("together", [1, 7, 4000])
def test_times_that_run_backwards_keep_a_bounded_number_of_windows_open(together: int) -> None:
    windows = TumblingWindows(1.0)
    times_ns = [n * LENGTH_NS // 2 for n in range(4000, 0, -1)]
    for part in (times_ns[n : n + together] for n in range(0, len(times_ns), together)):
        assert windows.add(Column(part, [1.0] * len(part))) == []
        assert len(windows._open) <= SPARE_WINDOWS + 1
    assert (windows.late, windows.set_back) == (0, 2000 // (SPARE_WINDOWS + 1))
    assert [window.start_ns for window in windows.add(Column([10**13], [1.0]))] == sorted(
        n * LENGTH_NS for n in range(2001 % (SPARE_WINDOWS + 1))
    )


def test_a_window_shorter_than_a_nanosecond_lasts_a_nanosecond() -> None:
    windows = TumblingWindows(1e-12)
    windows.add(Column([5, 6], [1.0, 2.0]))
    assert list(windows._open) == [5, 6]


readings = st.lists(
    st.tuples(
        st.one_of(st.floats(-100, 200), st.sampled_from([-40.0, 100.0, math.nan, math.inf, -math.inf])),
        st.sampled_from([GOOD, GOOD, GOOD, SUSPECT, OUT_OF_RANGE, 2**63 - 1]),
    ),
    min_size=1,
    max_size=40,
)
mostly_good = st.lists(st.tuples(st.floats(-40, 100), st.just(GOOD)), min_size=1, max_size=40)


@pytest.mark.parametrize("sensor", [SENSOR, None])
@given(
    columns=st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 60), st.one_of(readings, mostly_good)), min_size=1, max_size=6
    )
)
def test_cleaning_an_array_of_readings_drops_the_same_readings_as_cleaning_each_reading(
    sensor: SensorConfig | None, columns: list[tuple[int, int, list[tuple[float, int]]]]
) -> None:
    low, high = (sensor.low, sensor.high) if sensor else (-math.inf, math.inf)
    cleaner = Cleaner(sensor)
    dropped: Counter[str] = Counter()
    last: dict[int, int] = {}
    for epoch, seq, rows in columns:
        column = Readings(
            sensor="t",
            epoch=epoch,
            seq=seq,
            quantity="temperature",
            unit="Cel",
            times_ns=tuple(n * STEP_NS for n in range(len(rows))),
            values=tuple(value for value, _ in rows),
            quality=tuple(quality for _, quality in rows),
        )
        kept = []
        for number, (value, quality) in enumerate(rows, seq):
            if number <= last.get(epoch, -1):
                dropped["repeat"] += 1
            elif epoch < max(last, default=0):
                dropped["old-epoch"] += 1
            elif quality != GOOD:
                dropped["suspect"] += 1
            elif not low <= value <= high:
                dropped["range"] += 1
            else:
                kept.append(((number - seq) * STEP_NS, value))
        last[epoch] = max(last.get(epoch, -1), column.last_seq)
        assert list(zip(*cleaner.clean(column, 0), strict=True)) == kept
    assert cleaner.dropped == dropped
