"""A short run of the benchmark of people who are hidden behind a wall, with the shipped model of appearance."""

from __future__ import annotations

import pytest

from benchmarks.analytics.hidden import compared


@pytest.mark.parametrize(("clothes", "switches"), [("different", 0), ("alike", 3)])
def test_hidden_people_keep_their_numbers_in_different_clothes_and_are_never_exchanged_in_the_same_clothes(
    clothes: str, switches: int
) -> None:
    (figures,) = compared([clothes], [4.0], range(1))
    assert figures == {
        "clothes": clothes,
        "hidden_s": 4.0,
        "people": 3,
        "without": 3,
        "with": switches,
        "exchanged": 0,
    }
