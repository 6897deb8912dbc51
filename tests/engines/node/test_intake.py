"""Tests of the limits at which the partitions of a lane pause and continue."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.node.intake import LATE_SHARE, LIVE_BYTES, LIVE_JOBS, LIVE_ROWS_PER_INSTANCE, LaneLoad, LaneThrottle
from ingest.contract.topics import BATCHES
from ingest.kafka.log import TopicPartition

ONE, TWO = TopicPartition(BATCHES, 0), TopicPartition(BATCHES, 1)


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

    def pauses(load: LaneLoad) -> bool:
        return bool(lane.paused(load, {ONE: load.rows}))

    assert not pauses(LaneLoad(over.rows - 1, over.jobs - 1, over.bytes - 1))
    assert pauses(over)
    assert pauses(LaneLoad(over.rows // 2 + 1, over.jobs // 2 + 1, over.bytes // 2 + 1))
    assert not pauses(LaneLoad(over.rows // 2, over.jobs // 2, over.bytes // 2))
    assert not pauses(LaneLoad(over.rows - 1, over.jobs - 1, over.bytes - 1))


def test_the_late_lane_has_a_fraction_of_the_live_limits() -> None:
    late = LaneThrottle(2, late=True)
    limit = 2 * LIVE_ROWS_PER_INSTANCE // LATE_SHARE
    assert not late.paused(LaneLoad(rows=limit), {ONE: limit})
    assert late.paused(LaneLoad(rows=limit + 1), {ONE: limit + 1})


def test_too_many_waiting_rows_pause_only_the_partition_that_they_come_from() -> None:
    lane, limit = LaneThrottle(1, late=False), LIVE_ROWS_PER_INSTANCE
    assert lane.paused(LaneLoad(rows=limit + 5), {ONE: limit, TWO: 5}) == {ONE}


def test_too_many_bytes_pause_all_partitions() -> None:
    lane = LaneThrottle(1, late=False)
    assert lane.paused(LaneLoad(bytes=LIVE_BYTES + 1), {ONE: 0, TWO: 5}) == {ONE, TWO}


@given(rows=st.lists(st.integers(0, 300), min_size=1, max_size=8))
def test_a_lane_over_its_rows_pauses_partitions_until_the_others_hold_half_of_the_limit(
    rows: list[int],
) -> None:
    lane, limit = LaneThrottle(1, late=False), LIVE_ROWS_PER_INSTANCE
    waiting = {TopicPartition(BATCHES, n): count for n, count in enumerate(rows)}
    paused = lane.paused(LaneLoad(rows=sum(rows)), waiting)
    assert bool(paused) == (sum(rows) > limit)
    if paused:
        assert sum(count for tp, count in waiting.items() if tp not in paused) <= limit // 2
