"""Tests of the served model, which settles the tasks of merged batches."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import pytest

from engines.backends.fake import FakeEngine
from engines.decoders import FrameRegion, OutputDecoder
from engines.engine import Images, Outputs
from engines.exceptions import BadBatch, ManifestError, ModelLoadFailed
from engines.node.jobs import HighWaterMarks, ItemTask, Job, accept, results
from engines.node.scheduler import MergedBatch, Scheduler
from engines.node.serving import ServedModel
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.identity import LIVE
from ingest.contract.records import Batch, Box, Detection, Fit, Inner, Region, Result
from ingest.contract.topics import BATCHES, DEADLETTER, RESULTS
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.site import PipelineConfig
from tests.engines.node.batches import PIPELINES, EvenModels, carrying, failure_of, item, record
from tests.paths import MODELS


def opened(engine: FakeEngine, decoder: OutputDecoder | None = None) -> ServedModel:
    model = Repository(MODELS).open("regions")
    pipeline = PipelineConfig(name="regions", model="regions", width=64, height=64, regions="motion")
    served = ServedModel(pipeline, model, engine, decoder)
    served.open()
    return served


class TestServing:
    def test_an_image_on_which_the_model_fails_does_not_affect_other_images(self) -> None:
        served = opened(FakeEngine(fails=lambda image: bool(image[0, 0, 0] == 66)))
        scheduler = Scheduler(EvenModels(32))
        jobs = [
            accept(record([item(n)], offset=n, first_pixel=66 if n == 2 else 1), HighWaterMarks(), PIPELINES)
            for n in range(4)
        ]
        for job in jobs:
            scheduler.add(TopicPartition(BATCHES, 0), job, 0)
        merged = scheduler.next(0)
        assert merged is not None
        served.classify(merged)
        outcomes = [results(job, 0)[0] for job in jobs]
        assert [r.topic for r in outcomes] == [RESULTS, RESULTS, DEADLETTER, RESULTS]
        assert [d.label for d in decode(Result, outcomes[0].value).detections] == ["car"]
        assert decode(Result, outcomes[0].value).model == "regions@1"

    def merged(self, *records: LogRecord) -> tuple[MergedBatch, list[Job]]:
        scheduler = Scheduler(EvenModels(32))
        jobs = [accept(r, HighWaterMarks(), PIPELINES) for r in records]
        for job in jobs:
            scheduler.add(TopicPartition(BATCHES, job.record.offset), job, 0)
        merged = scheduler.next(0)
        assert merged is not None
        return merged, jobs

    def test_a_batch_item_of_thousands_of_small_regions_is_classified_in_several_calls(self) -> None:
        """A hostile record of 1 MiB may declare so many regions that padding each one to a row takes gigabytes."""
        pixel = Region(Box(0, 0, 9, 9), Fit(1, 1, 0, 0), Inner(0, 0, 1, 1))
        hostile = item(1).model_copy(update={"regions": (pixel,) * 3000})
        batch = Batch(pipeline="regions", height=64, width=64, channels=3, items=(hostile,), pixels=bytes(9000))
        received = LogRecord(BATCHES, 0, 1, None, encode(batch), h.frame_headers([hostile.id], LIVE))
        merged, (job,) = self.merged(received)
        served = opened(FakeEngine())
        tracemalloc.start()
        try:
            served.classify(merged)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 3000 * 64 * 64 * 3 / 2
        assert results(job, 0)[0].topic == RESULTS
        assert len(decode(Result, results(job, 0)[0].value).looked_at) == 3000

    def test_outputs_are_matched_to_their_regions_although_the_warm_up_ends_between_engine_calls(self) -> None:
        class RegionBoxes:
            def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
                return [[Detection(box=row.region.box, label="car", class_id=1, score=0.5)] for row in rows]

        def end_warm_up(_: Images) -> bool:
            engine._batch_size = 4
            return False

        engine = FakeEngine()
        served = opened(engine, RegionBoxes())
        engine._batch_size, engine._fails = 1, end_warm_up
        boxes = [Box(0, 0, 1 + n, 64) for n in range(10)]
        regions = tuple(Region(box, Fit(1, 1, 0, 0), Inner(0, 0, 64, 64)) for box in boxes)
        merged, (job,) = self.merged(record([item(0).model_copy(update={"regions": regions})]))
        served.classify(merged)
        assert [one.box for one in decode(Result, results(job, 0)[0].value).detections] == boxes

    def test_of_merged_batches_only_the_batch_prepared_for_another_input_size_fails(self) -> None:
        small = item(1).model_copy(update={"regions": (Region(Box(0, 0, 9, 9), Fit(1, 1, 0, 0), Inner(0, 0, 8, 8)),)})
        batch = Batch(pipeline="regions", height=8, width=8, channels=3, items=(small,), pixels=bytes(192))
        other = LogRecord(BATCHES, 0, 1, None, encode(batch), h.frame_headers([small.id], LIVE, pipeline="regions"))
        merged, jobs = self.merged(record([item(0)], offset=0), other, record([item(2)], offset=2))
        opened(FakeEngine()).classify(merged)
        assert [results(job, 0)[0].topic for job in jobs] == [RESULTS, DEADLETTER, RESULTS]
        letter = results(jobs[1], 0)[0]
        assert decode(Batch, letter.value).items[0].seq == 1
        assert (
            b"the batch has pictures of"
            in h.failure_headers(failure_of(letter))["__connect.errors.exception.message"]
        )

    @pytest.mark.parametrize(
        ("colour", "fit", "topic"),
        [
            ("bgr", "stretch", RESULTS),
            ("", "", RESULTS),  # of a producer before version 1.3
            ("rgb", "stretch", DEADLETTER),
            ("bgr", "letterbox", DEADLETTER),
        ],
    )
    def test_a_batch_prepared_with_another_colour_order_or_fit_becomes_a_dead_letter(
        self, colour: str, fit: str, topic: str
    ) -> None:
        given = record([item(1)])
        batch = decode(Batch, given.value).model_copy(update={"colour": colour, "fit": fit})
        merged, (job,) = self.merged(replace(given, value=encode(batch)))
        opened(FakeEngine()).classify(merged)
        (written,) = results(job, 0)
        assert written.topic == topic
        if topic == DEADLETTER:
            assert decode(Batch, written.value).preparation == batch.preparation
            assert "give it a new name" in failure_of(written).message

    @pytest.mark.parametrize("error", [KeyError("label"), ZeroDivisionError("scale"), ValueError("shape")])
    def test_an_image_on_which_the_decoder_fails_becomes_a_dead_letter(self, error: Exception) -> None:
        class FailingDecoder:
            def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
                if any(row.frame_width == 13 for row in rows):
                    raise error
                return [[] for _ in rows]

        bad = item(1).model_copy(update={"width": 13})
        merged, jobs = self.merged(record([item(0)], offset=0), record([bad], offset=1))
        opened(FakeEngine(), FailingDecoder()).classify(merged)
        assert [results(job, 0)[0].topic for job in jobs] == [RESULTS, DEADLETTER]

    def test_the_model_id_of_a_job_is_set_before_its_outputs_are_decoded(self) -> None:
        merged, jobs = self.merged(record([item(0)]))
        seen: list[tuple[str, bool]] = []

        class RecordingDecoder:
            def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
                seen.append((jobs[0].model, jobs[0].settled))
                return [[] for _ in rows]

        served = opened(FakeEngine(), RecordingDecoder())
        seen.clear()  # skips the decoder's trial at the opening of the model
        served.classify(merged)
        assert seen == [("regions@1", False)]

    def test_images_are_padded_with_the_grey_level_of_the_model(self) -> None:
        region, seen = Region(Box(0, 0, 9, 9), Fit(1, 1, 0, 0), Inner(16, 0, 48, 64)), list[Images]()
        wide = item(1).model_copy(update={"regions": (region,)})
        batch = Batch(
            pipeline="regions", height=64, width=64, channels=3, items=(wide,), pixels=bytes([7]) * (64 * 32 * 3)
        )
        merged, _ = self.merged(LogRecord(BATCHES, 0, 0, None, encode(batch), {}))
        served = opened(FakeEngine(fails=lambda image: bool(seen.append(image))))
        seen.clear()  # the images of the warm-up
        served.classify(merged)
        (row,) = seen
        assert (row[:, 16:48] == 7).all()
        assert (row[:, :16] == 114).all()
        assert (row[:, 48:] == 114).all()

    def test_a_model_is_checked_on_several_images_when_it_is_opened(self) -> None:
        class BlindEngine(FakeEngine):
            def _infer_impl(self, images: Images) -> Outputs:
                return super()._infer_impl(np.zeros_like(images))

        class EqualOutputs:
            """Decoder that refuses outputs that do not depend on the image."""

            def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
                return [[] for _ in rows]

            def misfit(self, outputs: Outputs) -> str:
                (values,) = outputs.values()
                return "all images have equal outputs" if (values == values[0]).all() else ""

        opened(FakeEngine(), EqualOutputs())
        with pytest.raises(ModelLoadFailed, match="all images have equal outputs"):
            opened(BlindEngine(), EqualOutputs())

    @pytest.mark.parametrize(("regions", "objects"), [("tiles", 1), ("motion", 2)])
    def test_an_object_that_two_tiles_show_is_one_detection(self, regions: str, objects: int) -> None:
        class OneBox:
            def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
                return [[Detection(box=Box(10, 10, 30, 30), label="car", class_id=1, score=0.5)] for _ in rows]

        model = Repository(MODELS).open("regions")
        manifest = model.manifest.model_copy(update={"decoder": "yolox"})
        pipeline = PipelineConfig(name="regions", model="regions", width=64, height=64, regions=regions)
        served = ServedModel(pipeline, Model(manifest, model.folder), FakeEngine(), OneBox())
        served.open()
        merged, (job,) = self.merged(record([item(0, rows=2)]))
        served.classify(merged)
        assert len(decode(Result, results(job, 0)[0].value).detections) == objects

    def test_a_pipeline_with_another_input_size_than_its_model_is_refused(self) -> None:
        model = Repository(MODELS).open("regions")
        pipeline = PipelineConfig(name="regions", model="regions", width=32, height=64)
        with pytest.raises(ManifestError, match=r"width = 32: model regions@1 expects 64"):
            ServedModel(pipeline, model, FakeEngine())


def jpeg(level: int, side: int = 64) -> bytes:
    picture = np.full((side, side, 3), level, np.uint8)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()


def huge() -> bytes:
    """Return a small file whose header claims a picture of 60,000 × 60,000 pixels."""
    data = bytearray(jpeg(CAR))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (60_000).to_bytes(2, "big") * 2
    return bytes(data)


CAR, BUS = 1, 3
"""Grey levels for which the fake engine answers car and bus."""


class TestCarriedFrames:
    """Items that carry their encoded frame instead of pixels."""

    def classified(self, received: LogRecord) -> list[Outgoing]:
        job = accept(received, HighWaterMarks(), PIPELINES)
        opened(FakeEngine()).classify(MergedBatch("regions", list(job.tasks.values()), [job]))
        return results(job, 0)

    def test_the_node_decodes_and_crops_the_frame(self) -> None:
        found = [decode(Result, one.value) for one in self.classified(carrying([jpeg(CAR), jpeg(BUS)]))]
        assert [one.label for result in found for one in result.detections] == ["car", "bus"]

    @pytest.mark.parametrize(
        ("data", "error"),
        [
            (b"no picture", "Undecodable"),
            (jpeg(CAR)[:-200], "CutShort"),
            (jpeg(CAR, side=32), "WrongSize"),
            (huge(), "WrongSize"),
        ],
    )
    def test_only_the_unreadable_frame_of_a_batch_becomes_a_dead_letter_with_its_original_bytes(
        self, data: bytes, error: str
    ) -> None:
        first, letter, last = self.classified(carrying([jpeg(CAR), data, jpeg(BUS)]))
        assert [decode(Result, one.value).detections[0].label for one in (first, last)] == ["car", "bus"]
        assert (failure_of(letter).stage, failure_of(letter).error) == ("engine", error)
        parked = decode(Batch, letter.value)
        assert (parked.items[0].seq, parked.pixels, parked.attached_frames()) == (1, b"", [data])

    def test_a_frame_of_a_huge_declared_size_is_refused_before_it_is_decoded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("the frame was decoded"))
        (letter,) = self.classified(carrying([huge()], side=60_000))
        assert failure_of(letter).error == "TooLarge"

    @pytest.mark.parametrize(
        "fit", [Fit(1, 1, -64, 0), Fit(0, 1, 0, 0), Fit(math.nan, 1, 0, 0), Fit(1e-320, 1, 0, 0), Fit(9e9, 1, 0, 0)]
    )
    def test_a_region_that_lies_outside_of_the_frame_becomes_a_dead_letter(self, fit: Fit) -> None:
        job = accept(carrying([jpeg(CAR)]), HighWaterMarks(), PIPELINES)
        (task,) = job.tasks.values()
        region = task.item.regions[0]._replace(fit=fit)
        task.item = task.item.model_copy(update={"regions": (region,)})
        opened(FakeEngine()).classify(MergedBatch("regions", [task], [job]))
        assert isinstance(task.error, BadBatch)

    def test_a_replayed_dead_letter_is_classified(self) -> None:
        job = accept(carrying([jpeg(CAR), jpeg(BUS)]), HighWaterMarks(), PIPELINES)
        for task in job.tasks.values():
            task.error = ModelLoadFailed("broken")
        _, letter = results(job, 0)
        (again,) = self.classified(LogRecord(BATCHES, 0, 9, None, letter.value, letter.headers))
        assert [one.label for one in decode(Result, again.value).detections] == ["bus"]

    @pytest.mark.parametrize("fails", [True, False])
    def test_no_decoded_frame_is_kept_after_the_classification(self, fails: bool) -> None:
        job, kept = accept(carrying([jpeg(CAR), jpeg(BUS)]), HighWaterMarks(), PIPELINES), list[bool]()

        def refine(tasks: Sequence[ItemTask], found: list[list[Detection]]) -> list[list[Detection]]:
            kept.extend(task.image is not None for task in tasks)
            return found

        served = opened(FakeEngine())
        served._engine._fails = lambda _: fails
        served.classify(MergedBatch("regions", list(job.tasks.values()), [job]), refine)
        assert kept == ([] if fails else [True, True])
        assert [task.image for task in job.tasks.values()] == [None, None]

    def test_more_regions_than_the_maximum_batch_size_are_classified_in_several_engine_calls(self) -> None:
        job = accept(carrying([jpeg(CAR), jpeg(BUS)]), HighWaterMarks(), PIPELINES)
        for task in job.tasks.values():
            task.item = task.item.model_copy(update={"regions": task.item.regions * 3})
        served = opened(FakeEngine())
        served._engine._batch_size = 2
        served.classify(MergedBatch("regions", list(job.tasks.values()), [job]))
        assert [len(task.detections or ()) for task in job.tasks.values()] == [3, 3]
        assert {one.label for one in job.tasks[1].detections or ()} == {"bus"}
