"""Tests of the rule ``turning``."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from pydantic import ValidationError

from stream.analyse.rules.traffic.turning import TurningRule
from tests.stream.analyse.rules.scenes import SceneTrack, play, scene, track

LINES: dict[str, Any] = {
    "west": ((0.3, 0.0), (0.3, 1.0)),
    "east": ((0.7, 0.0), (0.7, 1.0)),
    "north": ((0.3, 0.2), (0.7, 0.2)),
    "south": ((0.3, 0.8), (0.7, 0.8)),
}
RULE = TurningRule(name="crossing", camera="c", pipeline="p", lines=LINES)
ARMS = {"west": (40.0, 180.0), "east": (600.0, 180.0), "north": (320.0, 10.0), "south": (320.0, 350.0)}


def way(*stops: tuple[float, float]) -> list[list[SceneTrack]]:
    frames = []
    for one, other in itertools.pairwise(stops):
        steps = int(math.dist(one, other) / 10)
        frames += [
            [track(one[0] + (other[0] - one[0]) * n / steps, one[1] + (other[1] - one[1]) * n / steps)]
            for n in range(steps)
        ]
    return [*frames, [track(*stops[-1])], [track(*stops[-1])]]


@pytest.mark.parametrize("origin", ARMS)
@pytest.mark.parametrize("destination", ARMS)
def test_each_turning_movement_through_a_junction_is_reported_with_origin_and_destination(
    origin: str, destination: str
) -> None:
    found = play(RULE.watch(640, 360), way(ARMS[origin], (320.0, 180.0), ARMS[destination]))
    assert [one.details for _, one in found] == [{"origin": origin, "destination": destination}]


def test_only_the_configured_turning_movements_are_reported() -> None:
    left_turns = RULE.model_copy(update={"only": (("south", "west"),)})
    assert play(left_turns.watch(640, 360), way(ARMS["south"], (320.0, 180.0), ARMS["north"])) == []
    assert len(play(left_turns.watch(640, 360), way(ARMS["south"], (320.0, 180.0), ARMS["west"]))) == 1


def test_a_turning_rule_with_a_line_between_equal_points_is_refused() -> None:
    with pytest.raises(ValidationError, match="two different points"):
        TurningRule(name="crossing", camera="c", pipeline="p", lines={**LINES, "up": ((0.1, 0.1), (0.1, 0.1))})


def test_a_turning_rule_limited_to_movements_between_unknown_lines_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"expected only = pairs of line names .*, not up"):
        TurningRule(name="crossing", camera="c", pipeline="p", lines=LINES, only=(("up", "west"),))


def test_after_a_restart_the_exit_line_of_a_reported_movement_does_not_begin_another_movement() -> None:
    state, east = RULE.watch(640, 360), way((320.0, 180.0), ARMS["east"])
    frames, found = [*east, *way(ARMS["east"], (320.0, 180.0))], []
    for n, tracks in enumerate(frames):  # the crossing of the line west was not read back
        found += state.observe(scene(0.2 * n, *tracks), {"t"} if n == len(east) - 1 else ())
    assert found == []


def test_two_lines_crossed_between_two_frames_count_in_the_order_in_which_they_were_crossed() -> None:
    lines = {"near": ((0.55, 0.0), (0.55, 1.0)), "far": ((0.5, 0.0), (0.5, 1.0))}
    rule = RULE.model_copy(update={"lines": lines})
    found = play(rule.watch(640, 360), [[track(200.0 + 160 * n, 180.0)] for n in range(4)])
    assert [one.details for _, one in found] == [{"origin": "far", "destination": "near"}]
