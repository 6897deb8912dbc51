"""Tests of cascades: the crops for second models, and the attributes of detections."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest
from aiokafka import TopicPartition as KafkaPartition
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from engines import backends
from engines.backends.fake import FakeEngine
from engines.engine import Images
from engines.exceptions import DeviceLost, ManifestError, ModelLoadFailed
from engines.metrics import NodeMetrics
from engines.node import cascade as cascade_module
from engines.node import serving
from engines.node.cascade import FAILED, LIMIT, NO_FRAME, NO_MODEL, SMALL, UNSURE, Cascade, planned
from engines.node.jobs import HighWaterMarks, Job, accept, results
from engines.node.node import Node
from engines.node.pipelines import LiveModels
from engines.node.scheduler import MergedBatch
from engines.node.serving import SecondModel, ServedModel
from engines.repository.manifest import InputSpec, Model
from engines.repository.store import Repository
from ingest.contract.codec import decode, encode
from ingest.contract.crop import CropWindow
from ingest.contract.records import Attribute, Batch, Box, Detection, EncodedFrame, Result
from ingest.contract.topics import DEADLETTER, RESULTS
from ingest.exceptions import ConfigError
from ingest.kafka.log import LogRecord
from ingest.kafka.memorylog import MemoryLog
from ingest.picture import draw
from ingest.site import PipelineConfig, SecondModelConfig
from tests.engines.node.batches import PIPELINES, carrying, item, record
from tests.engines.node.fakesource import FakeIntake, FakeSource, configured, running, until_written
from tests.paths import MODELS

TYPE = SecondModelConfig(name="type", model="regions")
SPEC = Repository(MODELS).open("regions").manifest.input
BUS, CAR = 3, 1
"""Grey levels for which the fake engine answers bus and car."""


def jpeg(level: int = BUS, width: int = 64, height: int = 64) -> bytes:
    picture = np.full((height, width, 3), level, np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def with_frames(*frames: bytes, offset: int = 0, first_seq: int = 0) -> LogRecord:
    """Return a record with one car per item. An empty frame stands for an item without an encoded frame."""
    plain = record([item(first_seq + n) for n in range(len(frames))], offset=offset)
    batch = decode(Batch, plain.value)
    items = tuple(
        one.model_copy(update={"attached": EncodedFrame("jpeg", len(frame)) if frame else None})
        for one, frame in zip(batch.items, frames, strict=True)
    )
    return replace(plain, value=encode(batch.model_copy(update={"items": items, "frames": b"".join(frames)})))


def merged(*records: LogRecord) -> tuple[MergedBatch, list[Job]]:
    jobs = [accept(one, HighWaterMarks(), PIPELINES) for one in records]
    return MergedBatch("regions", [task for job in jobs for task in job.tasks.values()], jobs), jobs


def found(jobs: Sequence[Job]) -> list[Detection]:
    """Return the detections in the results of jobs."""
    written = [outgoing for job in jobs for outgoing in results(job, 0)]
    assert {outgoing.topic for outgoing in written} == {RESULTS}
    return [one for outgoing in written for one in decode(Result, outgoing.value).detections]


def first_model() -> ServedModel:
    pipeline = PipelineConfig(name="regions", model="regions", width=64, height=64)
    served = ServedModel(pipeline, Repository(MODELS).open("regions"), FakeEngine())
    served.open()
    return served


def second_model(engine: FakeEngine | None = None, config: SecondModelConfig = TYPE) -> SecondModel:
    second = SecondModel(config, Repository(MODELS).open("regions"), engine or FakeEngine())
    second.open()
    return second


class CountingEngine(FakeEngine):
    """Engine that records the size of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def _infer_impl(self, images: Images) -> dict[str, np.ndarray]:
        self.sizes.append(len(images))
        return dict(super()._infer_impl(images))


class Rig:
    """A cascade of the shipped model with fake engines, and its metrics."""

    def __init__(self, *seconds: tuple[SecondModelConfig, SecondModel | None]) -> None:
        self.registry = CollectorRegistry()
        self.cascade = Cascade("regions", first_model(), seconds, NodeMetrics(self.registry))

    def count(self, outcome: str) -> float:
        labels = {"pipeline": "regions", "attribute": "type", "outcome": outcome}
        return self.registry.get_sample_value("sightline_engine_attributes_total", labels) or 0.0

    def classify(self, *records: LogRecord) -> list[Detection]:
        batch, jobs = merged(*records)
        self.cascade.classify(batch)
        return found(jobs)


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


class TestAttributes:
    def test_the_attribute_of_an_object_has_label_and_score_and_names_the_second_stage_model(self) -> None:
        rig = Rig((TYPE, second_model()))
        (car,) = rig.classify(with_frames(jpeg(BUS)))
        assert car.label == "car"
        (given,) = car.attributes
        assert (given.name, given.label, given.model, given.missing) == ("type", "bus", "regions@1", "")
        assert given.score == pytest.approx(0.9)
        assert rig.count("labelled") == 1

    def test_all_crops_of_a_merged_batch_reach_the_second_stage_model_in_full_batches(self) -> None:
        engine = CountingEngine()
        second = second_model(engine)
        engine._batch_size = 4  # the fastest size of the warm-up depends on the machine
        rig = Rig((TYPE, second))
        engine.sizes.clear()
        rig.classify(*(with_frames(jpeg(), jpeg(), jpeg(), offset=n, first_seq=3 * n) for n in range(3)))
        assert engine.sizes == [4, 4, 1]

    def test_each_of_several_second_stage_models_adds_its_attribute(self) -> None:
        plate = SecondModelConfig(name="plate", model="regions", on=("truck",))
        face = SecondModelConfig(name="face", model="regions", on=("car", "person"))
        rig = Rig((TYPE, second_model()), (plate, second_model()), (face, None))
        (car,) = rig.classify(with_frames(jpeg(BUS)))
        assert [(one.name, one.label, one.missing) for one in car.attributes] == [
            ("type", "bus", ""),
            ("face", "", NO_MODEL),
        ]

    @pytest.mark.parametrize(
        ("frame", "change", "reason"),
        [
            (jpeg(), {"min_pixels": 65}, SMALL),
            (jpeg(), {"min_score": 0.95}, UNSURE),
            (jpeg(0), {}, UNSURE),  # the label background
            (b"", {}, NO_FRAME),
            (jpeg()[:100], {}, NO_FRAME),
        ],
        ids=["small", "score", "background", "without-frame", "damaged-frame"],
    )
    def test_an_object_that_gets_no_label_from_a_second_stage_model_has_the_reason(
        self, frame: bytes, change: dict[str, object], reason: str
    ) -> None:
        config = TYPE.model_copy(update=change)
        rig = Rig((config, second_model(config=config)))
        (car,) = rig.classify(with_frames(frame))
        assert car.attributes == (Attribute(name="type", model="regions@1", missing=reason),)
        assert (rig.count(reason), rig.count("labelled")) == (1, 0)

    def test_an_error_of_a_second_stage_model_on_one_crop_loses_no_detection_and_no_other_label(self) -> None:
        bad = 77
        rig = Rig((TYPE, second_model(FakeEngine(fails=lambda image: bool(image[0, 0, 0] == bad)))))
        frames = [jpeg(bad if n == 2 else BUS) for n in range(5)]
        cars = rig.classify(with_frames(*frames))
        assert [car.label for car in cars] == ["car"] * 5
        assert [car.attributes[0].missing for car in cars] == ["", "", FAILED, "", ""]
        assert (rig.count("labelled"), rig.count(FAILED)) == (4, 1)

    def test_a_lost_device_of_a_second_stage_model_ends_the_process(self) -> None:
        class LostEngine(FakeEngine):
            lost = False

            def _infer_impl(self, images: Images) -> dict[str, np.ndarray]:
                if self.lost:
                    raise DeviceLost("gone")
                return dict(super()._infer_impl(images))

        engine = LostEngine()
        rig = Rig((TYPE, second_model(engine)))
        engine.lost = True
        with pytest.raises(DeviceLost):
            rig.classify(with_frames(jpeg()))

    def test_the_time_of_second_stage_models_counts_as_device_time_of_the_batch(self) -> None:
        batch, _ = merged(with_frames(jpeg()))
        Rig((TYPE, second_model())).cascade.classify(batch)
        assert batch.took.cascade > 0.0
        assert batch.took.device_s == batch.took.compute + batch.took.cascade

    def test_crops_that_do_not_fit_into_memory_together_are_classified_in_parts(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cascade_module, "MAX_CROPS", 2)
        engine = CountingEngine()
        rig = Rig((TYPE, second_model(engine)))
        engine._batch_size = 4
        engine.sizes.clear()
        cars = rig.classify(with_frames(*(jpeg(BUS if n % 2 else CAR) for n in range(5))))
        assert engine.sizes == [2, 2, 1]
        assert [car.attributes[0].label for car in cars] == ["car", "bus", "car", "bus", "car"]

    @pytest.mark.parametrize(("most_bytes", "decodings"), [(2 * 64 * 64 * 3, 2), (2 * 64 * 64 * 3 - 1, 4)])
    def test_an_encoded_frame_in_a_batch_is_decoded_once_for_both_models_while_memory_allows(
        self, most_bytes: int, decodings: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []
        real = cv2.imdecode
        monkeypatch.setattr(serving, "MAX_KEPT_BYTES", most_bytes)
        monkeypatch.setattr(cv2, "imdecode", lambda *args: calls.append(args) or real(*args))
        cars = Rig((TYPE, second_model())).classify(carrying([jpeg(CAR), jpeg(BUS)]))
        assert [car.attributes[0].label for car in cars] == ["car", "bus"]
        assert len(calls) == decodings

    def test_the_attribute_of_an_object_is_missing_if_the_encoded_frame_of_its_batch_is_unreadable(self) -> None:
        (car,) = Rig((TYPE, second_model())).classify(with_frames(jpeg(width=32)))
        assert car.attributes[0].missing == NO_FRAME

    def test_a_dead_letter_of_a_batch_keeps_the_encoded_frame_for_a_replay(self) -> None:
        batch, (job,) = merged(with_frames(jpeg(), jpeg(BUS)))
        for task in batch.tasks:
            task.error = ModelLoadFailed("broken")
        letters = results(job, 0)
        assert [letter.topic for letter in letters] == [DEADLETTER] * 2
        replayed = decode(Batch, letters[1].value)
        assert replayed.frames == jpeg(BUS)
        assert replayed.attached_frames() == [jpeg(BUS)]

    def test_a_detector_is_refused_as_second_stage_model(self) -> None:
        model = Repository(MODELS).open("regions")
        manifest = model.manifest.model_copy(update={"decoder": "yolox"})
        with pytest.raises(ManifestError, match="expected a classifier or a model of embeddings"):
            SecondModel(TYPE, Model(manifest, model.folder), FakeEngine())

    def test_a_model_of_embeddings_is_refused_as_model_of_a_pipeline(self) -> None:
        pipeline = PipelineConfig(name="p", model="appearance", width=64, height=128)
        with pytest.raises(ManifestError, match="Name a model of embeddings in the pipeline's then"):
            ServedModel(pipeline, Repository(MODELS).open("appearance"), FakeEngine())


class TestEmbeddings:
    LOOK = SecondModelConfig(name="type", model="appearance")

    def rig(self, config: SecondModelConfig = LOOK) -> Rig:
        second = SecondModel(config, Repository(MODELS).open("appearance"), backends.make("onnxruntime"))
        second.open(quickly=True)
        return Rig((config, second))

    def test_objects_get_an_embedding_and_no_attribute(self) -> None:
        rig = self.rig()
        cars = rig.classify(with_frames(jpeg(30), jpeg(220)))
        assert [car.attributes for car in cars] == [(), ()]
        dark, bright = (car.embeddings for car in cars)
        assert [(one.name, one.model) for one in (*dark, *bright)] == [("type", "appearance@1")] * 2
        assert dark[0].values != bright[0].values
        assert rig.count("embedded") == 2.0
        assert rig.count("labelled") == 0.0

    def test_an_object_that_is_too_small_has_a_reason_instead_of_an_embedding(self) -> None:
        config = self.LOOK.model_copy(update={"min_pixels": 500})
        (car,) = self.rig(config).classify(with_frames(jpeg()))
        assert car.embeddings == ()
        assert [(one.name, one.missing) for one in car.attributes] == [("type", SMALL)]


class SecondSource(FakeSource):
    """A source that also makes second models under the version ``second``; ``broken_second`` refuses to load."""

    def __init__(self) -> None:
        super().__init__()
        self.second = "regions@1"
        self.broken_second = False
        self.made: list[FakeEngine] = []

    def version(self, wanted: PipelineConfig | SecondModelConfig) -> str:
        return self.second if isinstance(wanted, SecondModelConfig) else super().version(wanted)

    def make(self, wanted: PipelineConfig | SecondModelConfig) -> ServedModel | SecondModel:
        if isinstance(wanted, PipelineConfig):
            return super().make(wanted)
        if self.broken_second:
            raise ModelLoadFailed(f"{self.second} is broken")
        model = Repository(MODELS).open("regions")
        number = int(self.second.partition("@")[2])
        self.made.append(FakeEngine())
        manifest = model.manifest.model_copy(update={"version": number})
        return SecondModel(wanted, Model(manifest, model.folder), self.made[-1])


PIPELINE = PipelineConfig(name="regions", model="regions", width=64, height=64, then=(TYPE,))


def live_models(source: SecondSource, now_s: Callable[[], float] = lambda: 0.0) -> LiveModels:
    return LiveModels(source, NodeMetrics(CollectorRegistry()), now_s)


async def attributes(live: LiveModels, *, lighter: bool = False) -> tuple[Attribute, ...]:
    batch, jobs = merged(with_frames(jpeg(BUS)))
    async with live.use("regions", lighter=lighter) as models:
        await asyncio.to_thread(models.classify, batch)
    (car,) = found(jobs)
    return car.attributes


class TestLiveSecondModels:
    async def test_a_pipeline_is_served_without_a_second_stage_model_that_cannot_be_loaded(self) -> None:
        source, now_s = SecondSource(), 0.0
        source.broken_second = True
        live = live_models(source, lambda: now_s)
        with pytest.raises(ConfigError, match=r"then\.type.*is broken"):
            await configured(live, [PIPELINE])
        assert live.names == {"regions"}
        assert await attributes(live) == (Attribute(name="type", missing=NO_MODEL),)
        source.broken_second, now_s = False, 61.0
        await live.update()
        assert [one.label for one in await attributes(live)] == ["bus"]
        await live.close()

    async def test_a_new_version_of_a_second_stage_model_replaces_the_old_version_and_keeps_the_first_model_open(
        self,
    ) -> None:
        source = SecondSource()
        live = live_models(source)
        await configured(live, [PIPELINE])
        source.second = "regions@2"
        await live.update()
        assert [one.model for one in await attributes(live)] == ["regions@2"]
        assert (len(source.engines), len(source.made)) == (1, 2)
        await live.close()

    async def test_a_second_stage_model_stays_in_service_if_its_new_version_is_broken(self) -> None:
        source = SecondSource()
        live = live_models(source)
        await configured(live, [PIPELINE])
        source.second, source.broken_second = "regions@2", True
        with pytest.raises(ConfigError):
            await live.update()
        assert [one.model for one in await attributes(live)] == ["regions@1"]
        await live.close()

    async def test_the_lighter_model_of_a_pipeline_has_the_same_second_stage_models(self) -> None:
        source = SecondSource()
        live = live_models(source)
        await configured(live, [PIPELINE.model_copy(update={"overload": "lighter", "lighter": "regions@5"})])
        assert live.has_lighter("regions")
        assert [one.label for one in await attributes(live, lighter=True)] == ["bus"]
        assert (len(source.engines), len(source.made)) == (2, 1)
        await live.close()

    async def test_a_second_stage_model_named_lighter_does_not_replace_the_lighter_model(self) -> None:
        live = live_models(SecondSource())
        named = TYPE.model_copy(update={"name": "lighter"})
        await configured(live, [PIPELINE.model_copy(update={"then": (named,)})])
        assert not live.has_lighter("regions")
        assert [one.name for one in await attributes(live)] == ["lighter"]
        await live.close()

    async def test_a_second_stage_model_that_the_site_file_removes_adds_no_attribute_any_more(self) -> None:
        live = live_models(SecondSource())
        await configured(live, [PIPELINE])
        await configured(live, [PIPELINE.model_copy(update={"then": ()})])
        assert await attributes(live) == ()
        await live.close()


async def test_a_node_writes_detections_and_attributes_in_one_record() -> None:
    log, intake, live = MemoryLog(2), FakeIntake(), live_models(SecondSource())
    await configured(live, [PIPELINE])
    node = Node(log, intake, live, concurrency=2, metrics=NodeMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    async with running(node, intake, KafkaPartition("sightline.batches", 0)):
        intake.fetched.put_nowait([with_frames(jpeg(BUS), b""), with_frames(jpeg(CAR), offset=1, first_seq=2)])
        await until_written(log, RESULTS, 3)
    written = [decode(Result, one.value) async for one in log.read(RESULTS, 0, 0, 3)]
    given = [one.attributes[0] for result in written for one in result.detections]
    assert [one.label or one.missing for one in given] == ["bus", NO_FRAME, "car"]
    assert [result.model for result in written] == ["regions@1"] * 3
    await live.close()
