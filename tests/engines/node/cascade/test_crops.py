"""Tests of the crops of detected objects for second-stage models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.node.cascade import LIMIT, NO_MODEL, SMALL, planned
from engines.repository.manifest import InputSpec
from engines.repository.store import Repository
from ingest.contract.crop import CropWindow
from ingest.contract.records import Box, Detection
from ingest.picture import draw
from ingest.site import SecondModelConfig
from tests.engines.node.cascade.bench import TYPE
from tests.paths import MODELS

SPEC = Repository(MODELS).open("regions").manifest.input
boxes = st.tuples(st.floats(-100, 700), st.floats(-100, 500), st.floats(0.01, 800), st.floats(0.01, 600)).map(
    lambda b: Box(b[0], b[1], b[0] + b[2], b[1] + b[3])
)
detections = st.lists(
    st.builds(
        Detection, box=boxes, label=st.sampled_from(["car", "truck"]), class_id=st.just(0), score=st.floats(0, 1)
    ),
    max_size=12,
)
configs = st.builds(
    SecondModelConfig,
    name=st.just("type"),
    model=st.just("regions"),
    on=st.sampled_from([(), ("car",)]),
    min_pixels=st.integers(1, 80),
    margin=st.floats(0, 1),
    max_objects=st.integers(1, 4),
)
specs = st.builds(
    InputSpec,
    name=st.just("x"),
    width=st.integers(1, 96),
    height=st.integers(1, 96),
    colour=st.sampled_from(["bgr", "rgb"]),
    fit=st.sampled_from(["stretch", "letterbox", "crop"]),
)
SIZE = (640, 360)


class TestCrops:
    @given(configs, specs, detections)
    def test_each_object_for_a_second_stage_model_gets_a_crop_inside_the_frame_unless_it_is_too_small(
        self, config: SecondModelConfig, spec: InputSpec, objects: list[Detection]
    ) -> None:
        plan = planned(config, spec, SIZE, objects)
        assert plan.keys() == {n for n, one in enumerate(objects) if not config.on or one.label in config.on}
        for number, window in plan.items():
            clipped = objects[number].box.clipped(*SIZE)
            large_enough = min(clipped.width, clipped.height) >= config.min_pixels
            assert (window == SMALL) == (not large_enough)
            if isinstance(window, CropWindow):
                assert 0 <= window.left < window.right <= SIZE[0]
                assert 0 <= window.top < window.bottom <= SIZE[1]
                assert window.region.box == clipped
                inner = window.region.inner
                assert 0 <= inner.left < inner.right <= spec.width
                assert 0 <= inner.top < inner.bottom <= spec.height
                picture = draw(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), window, spec.colour)
                assert picture.shape == (inner.bottom - inner.top, inner.right - inner.left, 3)

    @given(configs, specs, detections)
    def test_second_stage_models_classify_the_objects_with_the_highest_scores_up_to_the_limit(
        self, config: SecondModelConfig, spec: InputSpec, objects: list[Detection]
    ) -> None:
        plan = planned(config, spec, SIZE, objects)
        chosen = [objects[n].score for n, window in plan.items() if isinstance(window, CropWindow)]
        passed_over = [objects[n].score for n, window in plan.items() if window == LIMIT]
        assert len(chosen) <= config.max_objects
        assert not passed_over or len(chosen) == config.max_objects
        assert min(chosen, default=1.0) >= max(passed_over, default=0.0)

    def test_the_margin_of_a_second_stage_model_widens_its_crop_up_to_the_edge_of_the_frame(self) -> None:
        config = TYPE.model_copy(update={"margin": 0.5})
        objects = [Detection(box=Box(0, 100, 40, 140), label="car", class_id=1, score=0.9)]
        window = planned(config, SPEC, SIZE, objects)[0]
        assert isinstance(window, CropWindow)
        assert (window.left, window.top, window.right, window.bottom) == (0, 80, 60, 160)

    def test_without_its_second_stage_model_each_object_has_a_reason_instead_of_a_label(self) -> None:
        objects = [Detection(box=Box(0, 0, 40, 40), label="car", class_id=1, score=0.9)]
        assert planned(TYPE, None, SIZE, objects) == {0: NO_MODEL}

    @pytest.mark.parametrize("colour", ["bgr", "rgb"])
    def test_a_crop_shows_its_part_of_the_frame_in_the_colours_of_the_second_stage_model(self, colour: str) -> None:
        frame = np.zeros((360, 640, 3), np.uint8)
        frame[100:200, 200:300] = (10, 20, 30)
        spec = InputSpec(name="x", width=50, height=50, colour=colour, fit="stretch")  # type: ignore[arg-type]
        objects = [Detection(box=Box(200, 100, 300, 200), label="car", class_id=1, score=0.9)]
        window = planned(TYPE.model_copy(update={"margin": 0.0}), spec, SIZE, objects)[0]
        assert isinstance(window, CropWindow)
        picture = draw(frame, window, spec.colour)
        assert picture.shape == (50, 50, 3)
        assert (picture == ((10, 20, 30) if colour == "bgr" else (30, 20, 10))).all()
