"""Tests that a missing or repeated record among the fetched records of a partition is noticed."""

from __future__ import annotations

import pytest

from stream.exceptions import RecordsLost
from stream.runner.acks import Arrivals, FetchNumber


def test_records_that_arrive_in_order_are_accepted() -> None:
    arrivals = Arrivals(3)
    assert [arrivals.take(FetchNumber(3, number)) for number in range(4)] == [True] * 4
    assert arrivals.due == FetchNumber(3, 4)


@pytest.mark.parametrize("came", [1, 64])
def test_a_missing_first_record_of_an_assignment_raises_records_lost(came: int) -> None:
    arrivals = Arrivals(3)
    with pytest.raises(RecordsLost) as lost:
        arrivals.take(FetchNumber(3, came))
    assert (lost.value.due, lost.value.came) == (0, came)
    assert arrivals.due == FetchNumber(3, 0)


def test_a_gap_or_a_repeat_in_arriving_records_raises_records_lost() -> None:
    arrivals = Arrivals(3)
    arrivals.take(FetchNumber(3, 0))
    for came in (0, 2):
        with pytest.raises(RecordsLost):
            arrivals.take(FetchNumber(3, came))


def test_records_of_an_earlier_partition_assignment_are_skipped() -> None:
    arrivals = Arrivals(3)
    assert not arrivals.take(FetchNumber(2, 17))
    assert arrivals.take(FetchNumber(3, 0))
    assert not arrivals.take(FetchNumber(2, 18))
    assert arrivals.due == FetchNumber(3, 1)
