"""Tests of re-identification by appearance: lost tracks that return, and tracks that must not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from ingest.contract.records import Box
from ingest.site import PipelineConfig
from stream.analyse.tracking import appearance
from stream.analyse.tracking.paths import TRACK_IDLE_S
from stream.analyse.tracking.stationary import FrameView, StationaryTracks
from stream.analyse.tracking.tracker import Track
from tests.stream.analyse.tracking.lostpeople import (
    BLUE,
    FPS,
    RED,
    SETTINGS,
    Watched,
    person,
    result,
)


@pytest.mark.parametrize("hidden_s", [2.0, 8.0, 15.0, 29.0])
def test_a_track_that_returns_within_the_window_keeps_its_name(hidden_s: float) -> None:
    watched = Watched()
    (before,) = watched.walk(150.0, 300.0, RED)
    watched.wait(hidden_s)
    assert watched.walk(340.0, 500.0, RED) == [before]


def test_without_the_setting_a_lost_track_gets_another_name() -> None:
    watched = Watched(settings=None)
    (before,) = watched.walk(150.0, 300.0, RED)
    watched.wait(4.0)
    (after,) = watched.walk(340.0, 500.0, RED)
    assert after != before


@pytest.mark.parametrize(("look", "hidden_s"), [(BLUE, 4.0), (None, 4.0), (RED, 31.0)])
def test_another_look_or_no_embedding_or_a_return_after_the_window_gets_another_name(
    look: Sequence[float] | None, hidden_s: float
) -> None:
    watched = Watched()
    (before,) = watched.walk(150.0, 300.0, RED)
    watched.wait(hidden_s)
    (after,) = watched.walk(340.0, 500.0, look)
    assert after != before


def test_embeddings_of_another_model_version_are_not_compared() -> None:
    watched = Watched()
    (before,) = watched.walk(150.0, 300.0, RED)
    watched.wait(4.0)
    (after,) = watched.see(person(340.0, RED, model="m@2"), frames=3)
    assert after != before


def test_people_who_look_different_get_their_names_back_in_any_order() -> None:
    watched = Watched()
    both = watched.lose(person(200.0, RED), person(400.0, BLUE))
    (blue,) = watched.see(person(300.0, BLUE), frames=3)
    red = set(watched.see(person(300.0, BLUE), person(500.0, RED), frames=3)) - {blue}
    assert (red, blue) == ({both[0]}, both[1])


def test_of_two_lost_people_who_look_alike_none_is_reidentified() -> None:
    watched = Watched()
    both = watched.lose(person(200.0, RED), person(400.0, RED))
    (after,) = watched.see(person(200.0, RED), frames=3)
    assert after not in both


def test_a_person_who_looks_like_a_visible_person_is_not_reidentified() -> None:
    watched = Watched()
    both = watched.see(person(200.0, RED), person(400.0, RED), frames=10)
    watched.wait(5.0, person(400.0, RED))
    after = watched.see(person(200.0, RED), person(400.0, RED), frames=3)
    assert after[0] in both
    assert after[1] not in both


def test_two_people_who_look_alike_and_appear_together_do_not_get_the_name_of_one_lost_track() -> None:
    watched = Watched()
    (before,) = watched.lose(person(200.0, RED))
    names = watched.see(person(150.0, RED), person(450.0, RED), frames=3 + FPS)  # until their waits have ended
    assert len(names) == 2
    assert before not in names


def test_two_people_who_appear_together_never_share_a_number_even_without_a_minimum_lead() -> None:
    watched = Watched(settings=SETTINGS.model_copy(update={"min_lead": 0.0}))
    (before,) = watched.lose(person(200.0, RED))
    names = watched.see(person(150.0, RED), person(450.0, RED), frames=3)
    assert len(set(names)) == 2
    assert before in names


def test_a_person_who_is_not_tracked_yet_competes_for_a_lost_track() -> None:
    watched = Watched()
    (before,) = watched.lose(person(200.0, RED))
    watched.see(person(150.0, RED))
    names = watched.see(person(150.0, RED), person(450.0, RED), frames=3 + FPS)  # until their waits have ended
    assert len(names) == 2
    assert before not in names


def test_a_track_older_than_the_window_still_competes_with_a_similar_track_lost_later() -> None:
    watched = Watched()
    both = watched.see(person(200.0, RED), person(400.0, RED), frames=10)
    watched.wait(20.0, person(400.0, RED))
    watched.wait(12.0)
    (after,) = watched.see(person(200.0, RED), frames=3)
    assert after not in both


@pytest.mark.parametrize("away_s", [4.0, TRACK_IDLE_S + 5.0])
def test_a_person_who_has_left_the_picture_gets_another_name_on_coming_back(away_s: float) -> None:
    watched = Watched()
    (before,) = watched.walk(300.0, 630.0, RED)
    watched.wait(away_s)
    (after,) = watched.walk(630.0, 300.0, RED)
    assert after != before


def test_a_person_who_has_left_returns_if_the_configuration_says_so() -> None:
    watched = Watched(settings=SETTINGS.model_copy(update={"also_left": True}))
    (before,) = watched.walk(300.0, 630.0, RED)
    watched.wait(4.0)
    assert watched.walk(630.0, 300.0, RED) == [before]


def test_a_second_box_of_the_same_person_does_not_compete() -> None:
    watched = Watched()
    (before,) = watched.lose(person(200.0, RED))
    upper = person(300.0, RED).model_copy(update={"box": Box(283.0, 131.0, 317.0, 180.0), "score": 0.2})
    assert watched.see(person(300.0, RED), upper, frames=2) == [before]


def test_a_person_lost_at_the_edge_during_a_gap_without_frames_returns() -> None:
    watched = Watched()
    (before,) = watched.walk(300.0, 630.0, RED)
    watched.seq += 4 * FPS
    assert watched.walk(630.0, 300.0, RED) == [before]


def test_a_person_who_is_lost_again_right_after_the_return_has_not_left() -> None:
    """The way out of sight is no step: another such step would lead out of the picture."""
    watched = Watched()
    (before,) = watched.lose(person(200.0, RED))
    assert watched.see(person(450.0, RED), frames=2) == [before]
    watched.wait(5.0)
    assert watched.see(person(450.0, RED), frames=2) == [before]


def test_a_new_epoch_begins_without_lost_tracks() -> None:
    watched = Watched()
    assert watched.see(person(200.0, RED), frames=10) == ["1-1-0"]
    for seq in range(10):
        watched.analyser.step(result(seq, person(200.0, RED), epoch=2))
    assert watched.analyser.scene
    assert [track.name for track in watched.analyser.scene.tracks] == ["2-1-0"]


@pytest.mark.parametrize("label", ["car", "suitcase"])
def test_an_object_with_another_label_does_not_get_the_number_of_a_lost_person(label: str) -> None:
    watched = Watched()
    (before,) = watched.lose(person(200.0, RED))
    other = person(200.0, RED).model_copy(update={"label": label})
    (after,) = watched.see(other, frames=2)
    assert after != before


def test_a_mean_of_many_embeddings_outweighs_the_last_embeddings_before_an_occlusion() -> None:
    watched = Watched()
    (before,) = watched.see(person(200.0, RED), frames=30)
    watched.see(person(200.0, BLUE), frames=3)
    watched.wait(5.0)
    assert watched.see(person(200.0, RED), frames=3) == [before]


def test_the_number_of_kept_embeddings_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appearance, "MAX_KNOWN", 8)
    watched = Watched()
    rng = np.random.default_rng(3)
    for n in range(30):
        watched.see(person(100.0 + 400 * (n % 2), rng.normal(size=32), y=60.0 + 200 * (n // 2 % 2)), frames=3)
    memory = watched.analyser._memory
    assert memory is not None
    assert memory.size == 8


def test_embeddings_are_dropped_after_two_windows_also_while_nothing_moves() -> None:
    watched = Watched()
    watched.see(person(200.0, RED), frames=10)
    memory = watched.analyser._memory
    assert memory is not None
    assert memory.size == 1
    still = result(watched.seq + 61 * FPS).model_copy(
        update={"outcome": "empty", "motion": (), "withheld": {"still": 61 * FPS - 1}}
    )
    watched.analyser.step(still)
    assert memory.size == 0


def test_a_site_file_configures_reidentification_by_the_name_of_a_second_model() -> None:
    with pytest.raises(ValueError, match="expected the name of a second model in then: this pipeline has none"):
        PipelineConfig(name="p", model="m", width=64, height=64, appearance=SETTINGS)


def test_a_moving_part_of_a_stationary_object_has_no_embedding_because_it_may_be_another_object() -> None:
    box, still = Box(100.0, 100.0, 160.0, 200.0), StationaryTracks()
    still.seen(Track("t", box, 0.9), FrameView((), (box,), (box,)), 0.0, 0)
    part = person(130.0, RED).model_copy(update={"box": Box(105.0, 105.0, 130.0, 160.0)})
    (merged,) = still.merged([part], FrameView((part.box,), (), ()))
    assert (merged.box, merged.embeddings) == (box, ())
