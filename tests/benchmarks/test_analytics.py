"""Tests of the counts at lines in real clips against counts by eye, and of figures of simulated scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.analytics.clips import CountedClip
from benchmarks.analytics.identities import IdentityTally
from benchmarks.analytics.scenes import detected, objects_at
from edge_agent.sources.simulated import KINDS, SceneConfig, SimulatedScene
from edge_agent.sources.simulated.config import SceneKind
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.store import Repository
from ingest.contract.records import Box


@pytest.fixture(scope="module")
def models(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    adopt(shared_data / "yolox-nano.onnx", Repository(folder), AdoptOptions("yolox-nano", "yolox", COCO_LABELS))
    return folder


@pytest.mark.parametrize(
    ("name", "from_s", "to_s", "by_eye"),
    [
        pytest.param("cars", 0.0, 31.0, {"backward": 2, "forward": 2}, id="cars from above"),
        pytest.param("highway", 16.0, 23.2, {"backward": 9, "forward": 2}, id="a truck that hides a car"),
        pytest.param("people", 16.0, 20.0, {"forward": 1}, id="a person who leaves"),
    ],
)
def test_a_line_counts_a_real_clip_as_a_person_counts_it(
    shared_data: Path, models: Path, name: str, from_s: float, to_s: float, by_eye: dict[str, int]
) -> None:
    clip = CountedClip.of(name)
    events = clip.analyse(shared_data, models, from_s, to_s).events
    counts = clip.compared(events, from_s, to_s)
    assert counts == {"by_eye": by_eye, "counted": by_eye, "missed": 0, "false": 0}


@pytest.mark.parametrize("kind", KINDS)
def test_measured_counts_dwell_times_speeds_and_level_of_service_of_a_rainy_night_are_near_the_ground_truth(
    kind: SceneKind,
) -> None:
    figures = detected(SceneConfig(kind, seed=11, light="night", rain=True, density=0.5)).figures()
    assert (figures["recall"], figures["precision"]) == (1.0, 1.0)
    assert figures["visits"] == figures["true_visits"]
    assert figures["dwell_error_s"] <= 0.3
    assert figures["speed_error_percent"] <= 5.0
    assert figures.get("level_of_service") == figures.get("true_level_of_service")


@pytest.mark.parametrize("kind", KINDS)
def test_the_ground_truth_boxes_of_a_simulated_scene_match_the_objects_in_its_rendered_pictures(
    kind: SceneKind,
) -> None:
    scene = SceneConfig(kind, seed=11)
    for index in (40, 57, 83):
        rendered = {one.id: Box(*one.box) for one in SimulatedScene(scene).render(index).objects}
        listed = {number: box for number, _, box in objects_at(scene, index / scene.fps)}
        assert listed.keys() == rendered.keys()
        assert all(listed[number].iou(rendered[number]) > 0.8 for number in listed)


def test_an_object_that_gets_the_track_of_another_one_is_an_identity_switch() -> None:
    near, far = Box(0.0, 0.0, 50.0, 50.0), Box(100.0, 0.0, 150.0, 50.0)
    tally = IdentityTally()
    tally.add([(1, near), (2, far)], [("a", near), ("b", far)])
    tally.add([(1, near), (2, far)], [("a", near)])
    tally.add([(1, near), (2, far)], [("b", near), ("a", far)])
    assert (tally.switches, tally.seen, tally.tracked) == (2, 6, 5)
