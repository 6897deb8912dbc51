"""Tests of pipelines without a model, whose objects are the regions that the agent reports."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from edge_agent.gate.motion import MotionDetector
from edge_agent.sources.simulated import COUNTING_LINES, SceneConfig, SimulatedScene
from edge_agent.sources.simulated.actors import crossings_between
from engines.node.jobs import HighWaterMarks, accept, results
from ingest.contract.codec import decode
from ingest.contract.records import Box, Detection, FrameRef, Result
from ingest.site import CameraConfig, PipelineConfig
from stream.analyse.analyser import Analyser
from stream.analyse.rules.line import LineRule
from stream.analyse.tracking.tracker import ByteTracker
from tests.stream.prepare.bench import PrepareBench, frame

MOVING = PipelineConfig(name="moving", model="motion")
ONE, SAME, OTHER = Box(4, 4, 20, 20), Box(6, 6, 20, 20), Box(40, 10, 60, 30)


async def results_of(bench: PrepareBench) -> list[Result]:
    """Process the given frames in the stage and, without any model, in an engine node."""
    marks, found = HighWaterMarks(), []
    for record, _ in await bench.batches():
        found += [decode(Result, out.value) for out in results(accept(record, marks, frozenset()), 1)]
    return found


async def test_moving_and_stationary_regions_become_detected_objects_without_a_model() -> None:
    bench = PrepareBench.of(MOVING)
    await bench.give(frame(0, motion=(ONE, SAME), resting=(OTHER, Box(5, 5, 15, 15))))
    (result,) = await results_of(bench)
    assert (result.outcome, result.model) == ("classified", "motion")
    assert {(one.box, one.label, one.score) for one in result.detections} == {
        (ONE, "object", 1.0),
        (OTHER, "object", 1.0),
    }


async def test_a_frame_without_motion_has_an_empty_result_and_one_with_unknown_motion_is_shed() -> None:
    bench = PrepareBench.of(MOVING)
    await bench.give(frame(0, motion=()))
    await bench.give(frame(1))
    assert [(one.outcome, one.reason) for one in await results_of(bench)] == [
        ("empty", "still"),
        ("shed", "unknown_motion"),
    ]


def test_crossings_of_the_simulated_road_are_counted_by_motion_alone() -> None:
    config, found = SceneConfig("road", seed=3, fps=10.0, noise_sigma=0.0), []
    scene, detector = SimulatedScene(config), MotionDetector(0.0005)
    start, end = COUNTING_LINES["road"]
    rule = LineRule(name="line", camera="road", pipeline="moving", start=start, end=end, cooldown_s=2.0)
    analyser = Analyser([rule], CameraConfig(name="road", source="simulated:road"), ByteTracker)
    for index in range(600):
        boxes = tuple(detector.boxes(scene.render(index).image))
        detections = tuple(Detection(box=box, label="object", class_id=0, score=1.0) for box in boxes)
        found += analyser.step(
            Result(
                camera="road",
                epoch=1,
                seq=index,
                lane="live",
                source=FrameRef("frames", 0, index),
                captured_ns=index * 10**8,
                finished_ns=index * 10**8,
                width=640,
                height=360,
                pipeline="moving",
                pipelines=("moving",),
                outcome="classified",
                motion=boxes,
                detections=detections,
            )
        )
    truth = crossings_between(config, 0.0, 60.0)
    assert len(truth) > 15
    assert abs(len(found) - len(truth)) <= 0.2 * len(truth)


@pytest.mark.parametrize("settings", [{"shadow": "m@2"}, {"then": ({"name": "type", "model": "m"},)}])
def test_a_pipeline_without_a_model_refuses_settings_of_models(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="which has no model"):
        PipelineConfig.model_validate({"name": "moving", "model": "motion", **settings})


def test_a_pipeline_with_a_model_still_needs_its_input_size() -> None:
    with pytest.raises(ValidationError, match="width"):
        PipelineConfig.model_validate({"name": "moving", "model": "regions"})
