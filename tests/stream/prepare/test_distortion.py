"""Tests of the step ``distortion``, from frames of a camera with a lens to the boxes of results.

Scenes of bright objects are rendered through a lens with OpenCV. A fake model finds bright areas in its input. The
boxes of the results are compared with the bright areas of the frame.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from engines.backends.fake import FakeEngine
from engines.engine import Images, Outputs
from engines.exceptions import InferenceFailed
from engines.metrics import NodeMetrics
from engines.node.cascade import Cascade
from engines.node.fused import OwnedFrames
from engines.node.jobs import HighWaterMarks, Job, accept, results
from engines.node.scheduler import MergedBatch
from engines.node.serving import SecondModel, ServedModel
from engines.repository.manifest import InputSpec, Manifest, Model
from ingest import picture
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.records import Batch, BatchItem, Box, Detection, Lens, Optics, Pixels, Result
from ingest.contract.topics import BATCHES, DEADLETTER, FRAMES
from ingest.kafka.log import LogRecord, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.position import StartPosition
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, PipelineConfig, SecondModelConfig
from ingest.site.lens import LensConfig
from ingest.site.topic.view import Config
from stream.prepare import stage as stage_module
from stream.prepare.stage import PrepareStage
from tests.lenses import rays
from tests.stream.prepare.bench import frame

WIDTH, HEIGHT = 640, 360
WIDE = LensConfig(
    width=WIDTH, height=HEIGHT, fx=400, fy=400, cx=322, cy=176, distortion=(-0.3, 0.1, 0.0005, -0.0003, -0.015)
)
"""Lens that shows 92° from left to right. A straight line at the edge of the frame bends by 20 pixels."""
FISHEYE = LensConfig(
    model="fisheye", width=WIDTH, height=HEIGHT, fx=290, fy=290, cx=322, cy=176, distortion=(-0.02, 0.005, -0.002, 0)
)
"""Lens that shows 129° from left to right."""
Shape = Literal["ellipse", "rectangle"]
Scene = Sequence[tuple[Shape, float, float, float, float]]
"""Objects of a scene: shape, centre and half sides, as slopes of rays."""
OBJECTS: Scene = (
    ("ellipse", -0.6, -0.3, 0.06, 0.08),
    ("rectangle", 0.0, 0.0, 0.1, 0.06),
    ("ellipse", 0.62, 0.3, 0.1, 0.05),
    ("rectangle", 0.65, -0.25, 0.05, 0.07),
    ("ellipse", -0.55, 0.32, 0.05, 0.07),
    ("ellipse", 0.1, 0.3, 0.04, 0.09),
)


def seen(
    config: LensConfig, scene: Scene = OBJECTS, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> tuple[Pixels, list[Box]]:
    """Return the picture of a scene through a lens, and the boxes of its objects."""
    slopes, image, boxes = rays(config, size), np.full((size[1], size[0], 3), 20, np.uint8), []
    for shape, x, y, half_x, half_y in scene:
        across, down = abs(slopes[..., 0] - x) / half_x, abs(slopes[..., 1] - y) / half_y
        mask = across**2 + down**2 <= 1 if shape == "ellipse" else (across <= 1) & (down <= 1)
        ys, xs = np.nonzero(mask)
        boxes.append(Box(float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)))
        image[mask] = 230
    return image, boxes


class WatchedEngine(FakeEngine):
    """Engine that keeps the images that it has examined."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[Pixels] = []

    def _infer_impl(self, images: Images) -> Outputs:
        self.images += [image.copy() for image in images]
        return self.outputs(images)

    @abstractmethod
    def outputs(self, images: Images) -> Outputs:
        """Return the outputs of the model for some images."""


class BrightAreas(WatchedEngine):
    """Detector of bright areas."""

    def outputs(self, images: Images) -> Outputs:
        rows = np.zeros((len(images), 32, 6), np.float32)
        for row, image in zip(rows, images, strict=True):
            mask = (image[..., 0] > 125).astype(np.uint8)
            found = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:]
            for n, (left, top, width, height, _) in enumerate(found[found[:, 4] > 20][:32]):
                row[n] = left, top, left + width, top + height, 0.9, 0
        return {"rows": rows}


class Labels(WatchedEngine):
    """Classifier that gives each image the first label."""

    def outputs(self, images: Images) -> Outputs:
        return {"probabilities": np.tile(np.array([0.9, 0.1], np.float32), (len(images), 1))}


def model(decoder: str, labels: tuple[str, ...], width: int, height: int) -> Model:
    spec = InputSpec(name="images", width=width, height=height, colour="bgr", fit="stretch")
    manifest = Manifest(
        name="bright", version=1, file="none", sha256="0" * 64, decoder=decoder, labels=labels, input=spec
    )
    return Model(manifest, Path())


def frame_record(image: Pixels, headers: dict[str, bytes] | None = None, **values: Any) -> LogRecord:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    height, width = image.shape[:2]
    one = frame(0, image=data, width=width, height=height, **values)
    return LogRecord(FRAMES, 0, 0, b"gate", encode(one), headers or {})


class Chain:
    """The stages prepare and engine for one camera, ``gate``, and one pipeline with the step ``distortion``."""

    def __init__(self, lens: LensConfig | None, engine: WatchedEngine | None = None, **settings: Any) -> None:
        usual = {"width": WIDTH, "height": HEIGHT, "denoise": "none", "steps": ("distortion",)}
        self.pipeline = PipelineConfig(**{"name": "bright", "model": "bright", **usual, **settings})
        self.stage = PrepareStage("live", self.config(lens), ManualClock())
        self.processor = self.stage.processor(TopicPartition(FRAMES, 0))
        self.engine = engine or BrightAreas()
        decoder, labels = ("softmax", ("car", "background")) if isinstance(engine, Labels) else ("end2end", ("car",))
        first = ServedModel(
            self.pipeline, model(decoder, labels, self.pipeline.width, self.pipeline.height), self.engine
        )
        first.open()
        self.second = Labels()
        seconds = []
        for config in self.pipeline.then:
            second = SecondModel(config, model("softmax", ("van", "background"), 96, 96), self.second)
            second.open()
            seconds.append((config, second))
        self.second.images.clear()
        self.engine.images.clear()
        self.cascade = Cascade("bright", first, seconds, NodeMetrics(CollectorRegistry()))

    def config(self, lens: LensConfig | None) -> Config:
        camera = CameraConfig(name="gate", source="device:0", lens=lens)
        return Config({camera.key: camera, self.pipeline.key: self.pipeline})

    def prepare(self, image: Pixels, **values: Any) -> Job:
        works = [*self.processor.process(frame_record(image, **values)), *self.processor.flush()]
        ((batch,),) = (work.records for work in works if work.records)
        assert batch.topic == BATCHES
        record = LogRecord(batch.topic, 0, 0, None, batch.value, batch.headers)
        return accept(record, HighWaterMarks(), frozenset({"bright"}))

    def classify(self, job: Job) -> Result:
        self.cascade.classify(MergedBatch("bright", list(job.tasks.values()), [job]))
        (out,) = results(job, 0)
        return decode(Result, out.value)

    def boxes(self, image: Pixels, **values: Any) -> list[Box]:
        return [one.box for one in self.classify(self.prepare(image, **values)).detections]


def largest_error(found: Sequence[Box], truth: Sequence[Box]) -> float:
    """Return the largest difference in pixels between an edge of a true box and that of the box found for it."""
    assert len(found) == len(truth)
    nearest = [max(found, key=lambda box, one=one: box.iou(one)) for one in truth]  # type: ignore[misc]
    assert len(set(nearest)) == len(truth)
    return max(abs(a - b) for one, box in zip(truth, nearest, strict=True) for a, b in zip(one, box, strict=True))


MOST_PX = 2.5
"""Largest error in pixels of an edge of a box at 640×360. The objects have a bright area of up to 100 pixels."""


@pytest.mark.parametrize("lens", [WIDE, FISHEYE], ids=["wide", "fisheye"])
@pytest.mark.parametrize("carried", [True, False])
def test_boxes_found_in_an_undistorted_frame_come_back_in_pixels_of_the_frame(
    lens: LensConfig, carried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "_is_worth_carrying", lambda *_: carried)
    image, truth = seen(lens)
    chain = Chain(lens)
    job = chain.prepare(image)
    assert [task.item.cropped for task in job.tasks.values()] == [not carried]
    found = [one.box for one in chain.classify(job).detections]
    assert largest_error(found, truth) <= MOST_PX


def test_the_model_gets_straight_objects() -> None:
    bar: Scene = (("rectangle", 0.0, -0.38, 0.7, 0.04),)
    image, _ = seen(WIDE, bar)
    straight, bent = Chain(WIDE), Chain(None)
    straight.boxes(image)
    bent.boxes(image)
    (shown,), (as_sent,) = (chain.engine.images for chain in (straight, bent))
    assert filled(as_sent) < 0.75
    assert filled(shown) > 0.95


def filled(image: Pixels) -> float:
    """Return the share of bright pixels in the box around the bright pixels of an image: 1 for an upright
    rectangle."""
    ys, xs = np.nonzero(image[..., 0] > 125)
    return len(ys) / (np.ptp(ys) + 1) / (np.ptp(xs) + 1)


@pytest.mark.parametrize("carried", [True, False])
@pytest.mark.parametrize("regions", ["motion", "tiles"])
def test_boxes_found_in_regions_of_an_undistorted_frame_come_back_in_pixels_of_the_frame(
    regions: str, carried: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "_is_worth_carrying", lambda *_: carried)
    image, truth = seen(WIDE)
    width, height = (192, 192) if regions == "motion" else (320, 180)
    chain = Chain(WIDE, regions=regions, width=width, height=height, max_regions=16)
    motion = tuple(box.widened(0.1).clipped(WIDTH, HEIGHT) for box in truth)
    result = chain.classify(chain.prepare(image, motion=motion))
    assert largest_error([one.box for one in result.detections], truth) <= MOST_PX
    if regions == "motion":
        assert sorted(result.looked_at) == sorted(motion)


def test_an_object_at_the_border_of_two_tiles_is_reported_once() -> None:
    image, truth = seen(WIDE, [("rectangle", 0.0, 0.0, 0.3, 0.1), ("ellipse", 0.0, 0.3, 0.3, 0.05)])
    chain = Chain(WIDE, regions="tiles", width=320, height=180, max_regions=16, tile_overlap=0.0)
    job = chain.prepare(image)
    assert len(next(iter(job.tasks.values())).item.regions) > 2
    assert len(chain.classify(job).detections) == len(truth)


def test_a_classifier_of_moving_regions_labels_the_boxes_that_the_agent_reported() -> None:
    image, truth = seen(WIDE)
    boxes = (truth[0], truth[3])
    chain = Chain(WIDE, Labels(), regions="motion", width=64, height=64)
    result = chain.classify(chain.prepare(image, motion=boxes))
    assert sorted(one.box for one in result.detections) == sorted(boxes) == sorted(result.looked_at)
    assert all(image[0, 0].mean() > 100 or image[32, 32].mean() > 100 for image in chain.engine.images)


@pytest.mark.parametrize("carried", [True, False])
def test_a_second_model_gets_crops_of_the_undistorted_frame(carried: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "_is_worth_carrying", lambda *_: carried)
    bars: Scene = (("rectangle", 0.0, -0.38, 0.7, 0.07), ("rectangle", -0.7, 0.1, 0.06, 0.25))
    image, truth = seen(WIDE, bars)
    then = (SecondModelConfig(name="type", model="bright", min_pixels=8),)
    chain = Chain(WIDE, then=then, width=320, height=180)
    result = chain.classify(chain.prepare(image))
    assert [[one.label for one in each.attributes] for each in result.detections] == [["van"]] * 2
    assert len(chain.second.images) == 2
    assert all(filled(crop) > 0.95 for crop in chain.second.images)
    assert all(filled(image[round(b.top) : round(b.bottom), round(b.left) : round(b.right)]) < 0.85 for b in truth)


def test_a_batch_keeps_its_lens_when_the_configuration_changes_before_its_result() -> None:
    image, truth = seen(WIDE)
    chain = Chain(WIDE)
    job = chain.prepare(image)
    for later in (FISHEYE, None):
        chain.stage.configure(chain.config(later))
    found = [one.box for one in chain.classify(job).detections]
    assert largest_error(found, truth) <= MOST_PX
    chain.stage.configure(chain.config(None))
    chain.processor = chain.stage.processor(TopicPartition(FRAMES, 0))
    (task,) = chain.prepare(image).tasks.values()
    assert task.item.lens is None


async def test_an_engine_node_that_prepares_its_frames_maps_boxes_back_as_well() -> None:
    image, truth = seen(WIDE)
    chain, clock = Chain(WIDE), ManualClock()
    tp, writer = TopicPartition(FRAMES, 0), await MemoryLog(1, clock).writer("engine")
    owned = OwnedFrames(tp, writer, HighWaterMarks(), StartPosition(0), chain.processor, 0)
    record = frame_record(image)
    assert owned.deliver(record)
    works = [*owned.prepare([record], 0.0), *owned.flush()]
    (job,) = [job for work in works if work.records for job in owned.take_work(work, frozenset({"bright"}))]
    found = [one.box for one in chain.classify(job).detections]
    assert largest_error(found, truth) <= MOST_PX


@pytest.mark.parametrize("size", [(320, 180), (1280, 720), (1000, 600)])
def test_a_lens_applies_to_frames_of_another_size_than_its_calibration(size: tuple[int, int]) -> None:
    image, truth = seen(WIDE, size=size)
    most_px = MOST_PX * max(size[0] / WIDTH, size[1] / HEIGHT)
    assert largest_error(Chain(WIDE, width=size[0], height=size[1]).boxes(image), truth) <= most_px


@pytest.mark.parametrize(("size", "expected"), [((1280, 720), [4]), ((1278, 718), [2])])
def test_a_frame_that_is_decoded_at_reduced_size_is_undistorted_at_that_size(
    size: tuple[int, int], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(data: bytes, encoding: str, declared: tuple[int, int], reduction: int = 1) -> Pixels:
        reductions.append(reduction)
        return decoder(data, encoding, declared, reduction)

    reductions: list[int] = []
    decoder = picture.pixels
    monkeypatch.setattr(picture, "pixels", watched)
    image, truth = seen(WIDE, size=size)
    chain = Chain(WIDE, width=320, height=180)
    error = largest_error(chain.boxes(image), truth)
    assert reductions == expected
    assert error <= 2 * MOST_PX * size[0] / WIDTH  # a pixel of the input is four pixels of the frame


def test_a_filtered_frame_is_undistorted_after_the_filter() -> None:
    image, truth = seen(WIDE)
    chain = Chain(WIDE, denoise="median", steps=("low-light", "fog", "distortion"))
    job = chain.prepare((image * 0.12).astype(np.uint8))
    assert [task.item.cropped for task in job.tasks.values()] == [True]
    found = [one.box for one in chain.classify(job).detections]
    assert largest_error(found, truth) <= MOST_PX


def test_cameras_without_a_lens_and_pipelines_without_the_step_get_frames_as_the_camera_sends_them() -> None:
    image, truth = seen(WIDE)
    for chain in (Chain(None), Chain(WIDE, steps=())):
        job = chain.prepare(image)
        assert [task.item.lens for task in job.tasks.values()] == [None]
        found = [one.box for one in chain.classify(job).detections]
        assert largest_error(found, truth) <= 1.0


def test_a_single_picture_of_a_pipeline_is_not_undistorted() -> None:
    image, _ = seen(WIDE)
    chain = Chain(WIDE)
    headers = h.frame_headers([frame(0).id], "live", pipeline="bright")
    works = [*chain.processor.process(frame_record(image, headers)), *chain.processor.flush()]
    (batch,) = [decode(Batch, out.value) for work in works for out in work.records]
    assert [item.lens for item in batch.items] == [None]


def test_a_box_that_the_undistorted_frame_does_not_show_is_not_examined() -> None:
    image, truth = seen(WIDE)
    corner, centre = Box(0.0, 0.0, 20.0, 20.0), truth[1]
    chain = Chain(WIDE.model_copy(update={"zoom": 1.5}), regions="motion")
    result = chain.classify(chain.prepare(image, motion=(corner, centre)))
    assert result.looked_at == (centre,)


def test_the_dead_letter_of_an_undistorted_frame_gives_the_right_boxes_when_it_is_replayed() -> None:
    image, truth = seen(WIDE)
    chain = Chain(WIDE)
    job = chain.prepare(image)
    (task,) = job.tasks.values()
    task.error = InferenceFailed("the device is full")
    (letter,) = results(job, 0)
    assert letter.topic == DEADLETTER
    again = accept(LogRecord(BATCHES, 0, 1, None, letter.value), HighWaterMarks(), frozenset({"bright"}))
    found = [one.box for one in chain.classify(again).detections]
    assert largest_error(found, truth) <= MOST_PX


def test_an_object_in_the_empty_border_of_an_undistorted_frame_is_dropped() -> None:
    (task,) = Chain(WIDE).prepare(seen(WIDE)[0]).tasks.values()
    inside, border = (
        Detection(box=box, label="car", class_id=0, score=0.9)
        for box in (Box(300.0, 100.0, 340.0, 130.0), Box(300.0, 1.0, 340.0, 8.0))
    )
    (kept,) = task.in_frame([border, inside])
    assert kept.box.area > inside.box.area


numbers = st.floats(-1e6, 1e6)
focals = st.floats(1.0, 1e6)
coefficients = st.tuples(*[st.floats(-1000, 1000)] * 4)
optics = st.builds(
    Optics,
    model=st.sampled_from(["pinhole", "fisheye"]),
    fx=focals,
    fy=focals,
    cx=numbers,
    cy=numbers,
    distortion=coefficients,
)
SMALL = (160, 90)


@lru_cache
def small_chain() -> Chain:
    return Chain(WIDE, width=SMALL[0], height=SMALL[1])


@settings(max_examples=50)
@given(st.builds(Lens, optics=optics, fx=focals, fy=focals, cx=numbers, cy=numbers))
def test_a_batch_with_any_lens_gives_a_result_with_boxes_inside_the_frame(lens: Lens) -> None:
    chain = small_chain()
    job = chain.prepare(seen(WIDE, size=SMALL)[0])
    (task,) = job.tasks.values()
    item = decode(BatchItem, encode(task.item.model_copy(update={"lens": lens})))
    job.items, job.tasks = [item], {0: replace(task, item=item)}
    boxes = [one.box for one in chain.classify(job).detections]
    assert all(box == box.clipped(*SMALL) and box.area > 0 for box in boxes)
