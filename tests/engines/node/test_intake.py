"""Tests of the limits at which a lane pauses and continues."""

from __future__ import annotations

import pytest

from engines.node.intake import LATE_SHARE, LIVE_BYTES, LIVE_JOBS, LIVE_ROWS_PER_INSTANCE, LaneLoad, LaneThrottle


@pytest.mark.parametrize(
    "over",
    [
        LaneLoad(rows=2 * LIVE_ROWS_PER_INSTANCE + 1),
        LaneLoad(jobs=LIVE_JOBS + 1),
        LaneLoad(bytes=LIVE_BYTES + 1),
    ],
)
def test_a_lane_pauses_above_any_limit_and_continues_at_half_of_the_limit(over: LaneLoad) -> None:
    lane = LaneThrottle(2, late=False)
    assert not lane.full(LaneLoad(over.rows - 1, over.jobs - 1, over.bytes - 1))
    assert lane.full(over)
    assert lane.full(LaneLoad(over.rows // 2 + 1, over.jobs // 2 + 1, over.bytes // 2 + 1))
    assert not lane.full(LaneLoad(over.rows // 2, over.jobs // 2, over.bytes // 2))
    assert not lane.full(LaneLoad(over.rows - 1, over.jobs - 1, over.bytes - 1))


def test_the_late_lane_has_a_fraction_of_the_live_limits() -> None:
    late = LaneThrottle(2, late=True)
    limit = 2 * LIVE_ROWS_PER_INSTANCE // LATE_SHARE
    assert not late.full(LaneLoad(rows=limit))
    assert late.full(LaneLoad(rows=limit + 1))
