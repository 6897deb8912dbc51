"""Tests of the clock offset and its error bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.clockoffset import MEASUREMENTS_KEPT, ClockOffset

NOW_NS = 1_800_000_000_000_000_000
delays_ms = st.floats(0.01, 500.0)


@given(offset_ms=st.floats(-1e7, 1e7), exchanges=st.lists(st.tuples(delays_ms, delays_ms), min_size=1, max_size=80))
def test_the_true_clock_offset_is_within_the_error_bound_of_the_estimate(
    offset_ms: float, exchanges: list[tuple[float, float]]
) -> None:
    clock = ClockOffset()
    for number, (there_ms, back_ms) in enumerate(exchanges):
        sent_ns = NOW_NS + number * 1_000_000_000
        stamp_ms = int(sent_ns / 1e6 + there_ms + offset_ms)
        clock.add(sent_ns, sent_ns + round((there_ms + back_ms) * 1e6), stamp_ms)
    found = clock.estimate
    assert found is not None
    assert abs(found.offset_ms - offset_ms) <= found.error_ms + 0.01
    assert found.error_ms <= min(a + b for a, b in exchanges[-MEASUREMENTS_KEPT:]) / 2 + 0.51


def test_the_clock_offset_is_unknown_before_the_first_valid_measurement() -> None:
    clock = ClockOffset()
    clock.add(NOW_NS, NOW_NS - 1, NOW_NS // 1_000_000)
    assert clock.estimate is None


def test_the_first_measurement_after_a_clock_was_set_corrects_the_clock_offset_estimate() -> None:
    clock = ClockOffset()
    for second in range(10):
        sent_ns = NOW_NS + second * 10**9
        clock.add(sent_ns, sent_ns + 2_000_000, sent_ns // 1_000_000 + 1)
    sent_ns = NOW_NS + 11 * 10**9
    clock.add(sent_ns, sent_ns + 40_000_000, sent_ns // 1_000_000 + 20 - 90_000)  # the clock was set 90 s forward
    found = clock.estimate
    assert found is not None
    assert abs(found.offset_ms + 90_000) <= found.error_ms
