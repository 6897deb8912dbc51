"""A record that was fetched and did not arrive is missed, whatever the gaps between the offsets."""

from __future__ import annotations

import pytest

from stream.exceptions import Lost
from stream.runner.faust.arrivals import Arrivals, Stamp


def test_records_that_arrive_in_turn_are_taken() -> None:
    arrivals = Arrivals(3)
    assert [arrivals.take(Stamp(3, number)) for number in range(4)] == [True] * 4
    assert arrivals.due == Stamp(3, 4)


@pytest.mark.parametrize("came", [1, 64])
def test_a_first_record_that_is_not_the_first_fetched_is_refused(came: int) -> None:
    arrivals = Arrivals(3)
    with pytest.raises(Lost) as lost:
        arrivals.take(Stamp(3, came))
    assert (lost.value.due, lost.value.came) == (0, came)
    assert arrivals.due == Stamp(3, 0)


def test_a_hole_and_a_repeat_later_on_are_refused() -> None:
    arrivals = Arrivals(3)
    arrivals.take(Stamp(3, 0))
    for came in (0, 2):
        with pytest.raises(Lost):
            arrivals.take(Stamp(3, came))


def test_records_of_another_run_are_passed_over() -> None:
    arrivals = Arrivals(3)
    assert not arrivals.take(Stamp(2, 17))
    assert arrivals.take(Stamp(3, 0))
    assert not arrivals.take(Stamp(2, 18))
    assert arrivals.due == Stamp(3, 1)
