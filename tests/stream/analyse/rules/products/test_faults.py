"""Tests of the rule ``faults``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from ingest.site.hours import WeeklyHours
from stream.analyse.rules.products.faults import FaultsRule
from tests.stream.analyse.rules.scenes import SceneTrack, play, scene, track

LINE: dict[str, Any] = {"name": "belt", "camera": "c", "pipeline": "p", "start": (0.5, 1.0), "end": (0.5, 0.0)}
STREAK = FaultsRule(**LINE, faulty=("dent",), streak=3)
SHARE = FaultsRule(**LINE, faulty=("dent",), share=0.2, at_least=10, within_s=60.0)


def belt(labels: Sequence[str], attribute: str = "") -> list[list[SceneTrack]]:
    """Return frames in which the products cross the line one after another."""
    frames: list[list[SceneTrack]] = []
    for n, label in enumerate(labels):
        for x in (250.0, 290.0, 330.0, 370.0, 410.0):
            extra = {attribute: label} if attribute else {}
            frames.append([track(x, 180.0, f"t{n}", "can" if attribute else label, **extra)])
    return frames


def test_a_streak_of_faulty_products_is_reported_once_and_again_after_a_good_product() -> None:
    labels = ["ok", "dent", "dent", "ok", "dent", "dent", "dent", "dent", "ok", "dent", "dent", "dent"]
    found = play(STREAK.watch(640, 360), belt(labels))
    assert [one.track.name for _, one in found if one.track] == ["t6", "t11"]
    assert found[0][1].summary == "3 faulty products in a row at belt"


def test_the_share_of_faulty_products_is_reported_only_after_enough_products() -> None:
    found = play(SHARE.watch(640, 360), belt(["dent"] * 9))
    assert found == []
    ((_, one),) = play(SHARE.watch(640, 360), belt(["ok"] * 9 + ["dent"] * 5))
    assert (one.details["faulty"], one.details["products"], one.details["share"]) == (3, 12, 0.25)


def test_products_older_than_within_s_do_not_count_for_the_share_of_faults() -> None:
    assert play(SHARE.watch(640, 360), belt(["dent"] * 2 + ["ok"] * 100 + ["dent"] * 2)) == []


def test_the_fault_of_a_product_may_be_the_label_of_a_second_stage_model() -> None:
    rule = FaultsRule(**LINE, faulty=("dent",), attribute="surface", streak=2)
    found = play(rule.watch(640, 360), belt(["dent", "dent"], "surface"))
    assert [one.track.name for _, one in found if one.track] == ["t1"]


def test_a_high_share_is_not_reported_again_while_too_few_products_pass_to_compute_a_share() -> None:
    rule = SHARE.model_copy(update={"within_s": 10.5})  # one product a second: 11 at most, 8 after a pause
    state, pause = rule.watch(640, 360), [[]] * 20
    assert len(play(state, [*belt(["dent"] * 15), *pause, *belt(["dent"] * 15)])) == 1


def test_a_streak_of_faults_that_began_before_the_active_hours_of_a_rule_is_reported_when_the_hours_begin() -> None:
    rule = STREAK.model_copy(update={"hours": (WeeklyHours(start="08:01", end="09:00"),)})
    assert len(play(rule.watch(640, 360), belt(["dent"] * 65))) == 1


def test_a_streak_of_faulty_products_whose_event_is_written_is_not_reported_again_after_a_restart() -> None:
    state = STREAK.watch(640, 360)
    play(state, belt(["dent"] * 2))
    state.observe(scene(10.0, track(410.0, 180.0, "t1", "dent")), {"t1"})
    later = [[one._replace(name=f"later-{one.name}") for one in tracks] for tracks in belt(["dent"] * 4)]
    assert play(state, later) == []


@pytest.mark.parametrize("bounds", [{}, {"streak": 3, "share": 0.1}])
def test_the_faults_rule_needs_exactly_one_of_streak_and_share(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="expected streak or share, but not both"):
        FaultsRule(**LINE, faulty=("dent",), **bounds)
