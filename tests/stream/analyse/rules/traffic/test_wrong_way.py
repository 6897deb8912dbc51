"""Tests of the rule ``wrong_way``."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from stream.analyse.rules.traffic.wrong_way import WrongWayRule
from tests.stream.analyse.rules.scenes import SceneTrack, play, track

RULE = WrongWayRule(name="ramp", camera="c", pipeline="p", start=(0.1, 0.5), end=(0.9, 0.5))


def go(dx: float, dy: float, frames: int = 20) -> list[list[SceneTrack]]:
    return [[track(320.0 + dx * n, 180.0 + dy * n)] for n in range(frames)]


@pytest.mark.parametrize(
    ("dx", "dy", "reports"), [(-10.0, 0.0, 1), (-10.0, 4.0, 1), (10.0, 0.0, 0), (0.0, 8.0, 0), (-0.5, 0.0, 0)]
)
def test_only_a_clear_movement_against_the_allowed_direction_is_reported_as_wrong_way(
    dx: float, dy: float, reports: int
) -> None:
    assert len(play(RULE.watch(640, 360), go(dx, dy))) == reports


def test_a_bounding_box_that_jumps_back_once_is_not_reported_as_wrong_way() -> None:
    path = [*go(10.0, 0.0, 10), *[[track(380.0, 180.0)]], *go(10.0, 0.0, 20)[12:]]
    assert play(RULE.watch(640, 360), path) == []


def test_a_wrong_way_rule_needs_two_different_points() -> None:
    with pytest.raises(ValidationError, match="two different points as start and end"):
        RULE.model_validate({**RULE.model_dump(), "end": RULE.start})


def test_an_object_that_goes_the_wrong_way_and_stops_and_goes_on_is_reported_once() -> None:
    way = [
        x for part in range(3) for x in [*range(600 - 150 * part, 450 - 150 * part, -10), *[450 - 150 * part] * 15]
    ]
    assert len(play(RULE.watch(640, 360), [[track(float(x), 180.0)] for x in way])) == 1
