"""Properties of sensor windows: the order of arrival within the allowed lateness does not change the windows."""

from __future__ import annotations

import itertools
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from stream.sense.windows import ALLOWED_LATENESS_S, Column, TumblingWindows

MS = 1_000_000
LATENESS_MS = round(ALLOWED_LATENESS_S * 1000)


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[int, int]]:
    """Draw readings (time in ms, value) in an order of arrival in which none is later than allowed.

    A reading at the time t arrives before every reading at t plus the allowed lateness or later.
    """
    times_ms = draw(st.lists(st.integers(0, 30_000), min_size=1, max_size=80))
    delays_ms = draw(st.lists(st.integers(0, LATENESS_MS), min_size=len(times_ms), max_size=len(times_ms)))
    order = sorted(zip(times_ms, delays_ms, strict=True), key=lambda one: one[0] + one[1])
    return [(at_ms, draw(st.integers(-50, 50))) for at_ms, _ in order]


@given(
    readings=arrivals(), cuts=st.sets(st.integers(1, 79), max_size=8), length_s=st.sampled_from((0.25, 1.0, 2.0, 5.0))
)
def test_windows_equal_a_batch_computation_for_any_order_of_arrival_within_the_lateness(
    readings: list[tuple[int, int]], cuts: set[int], length_s: float
) -> None:
    length_ns = round(length_s * 1e9)
    batch: defaultdict[int, list[int]] = defaultdict(list)
    for at_ms, value in readings:
        batch[at_ms * MS // length_ns * length_ns].append(value)
    windows, found = TumblingWindows(length_s), []
    edges = sorted({0, len(readings), *(cut for cut in cuts if cut < len(readings))})
    for begin, end in itertools.pairwise(edges):
        part = readings[begin:end]
        found += windows.add(Column([at_ms * MS for at_ms, _ in part], [float(value) for _, value in part]))
    found += windows.due(10**15)
    assert [one.start_ns for one in found] == sorted(batch)
    assert {one.start_ns: (one.count, one.total) for one in found} == {
        start_ns: (len(values), float(sum(values))) for start_ns, values in batch.items()
    }
    assert (windows.late, windows.set_back) == (0, 0)
