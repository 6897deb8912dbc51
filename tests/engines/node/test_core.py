"""Tests of the node's decisions without Kafka: high-water marks, jobs, scheduler and served models."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.backends.fake import FakeEngine
from engines.decoders import FrameRegion, OutputDecoder
from engines.engine import Images, Outputs
from engines.exceptions import ManifestError
from engines.node.jobs import Job, accept, results
from engines.node.marks import EPOCHS_KEPT, HighWaterMarks
from engines.node.scheduler import MergedBatch, Scheduler
from engines.node.serving import ServedModel
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.identity import LATE, LIVE, FrameId, replay_lane
from ingest.contract.records import Batch, BatchItem, Box, Detection, Fit, FrameRef, Inner, Region, Result
from ingest.contract.topics import BATCHES, BATCHES_LATE, DEADLETTER, RESULTS
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.site import PipelineConfig
from tests.paths import MODELS

PIPELINES = frozenset({"regions"})


def item(seq: int, *, camera: str = "a", rows: int = 1, lane: str = LIVE, reason: str = "") -> BatchItem:
    region = Region(Box(0, 0, 64, 64), Fit(1, 1, 0, 0), Inner(0, 0, 64, 64))
    return BatchItem(
        camera=camera,
        epoch=7,
        seq=seq,
        lane=lane,
        captured_ns=seq,
        width=64,
        height=64,
        source=FrameRef("frames", 0, seq),
        pipelines=("regions",),
        outcome="classify" if rows else ("shed" if reason else "empty"),
        reason=reason,
        regions=(region,) * rows,
    )


def record(
    items: list[BatchItem], *, offset: int = 0, first_pixel: int = 1, lane: str = "", pipeline: str = "regions"
) -> LogRecord:
    count = sum(len(i.regions) for i in items)
    pixels = np.full((count, 64, 64, 3), first_pixel, np.uint8).tobytes()
    batch = Batch(pipeline=pipeline, height=64, width=64, channels=3, items=tuple(items), pixels=pixels)
    headers = h.frame_headers([i.id for i in items], lane or items[0].lane, pipeline=pipeline)
    return LogRecord(BATCHES, 0, offset, None, encode(batch), headers)


def opened(engine: FakeEngine, decoder: OutputDecoder | None = None) -> ServedModel:
    model = Repository(MODELS).open("regions")
    pipeline = PipelineConfig(name="regions", model="regions", width=64, height=64, regions="motion")
    served = ServedModel(pipeline, model, lambda: engine, 1, decoder)
    served.open()
    return served


def failure_of(letter: Outgoing) -> h.Failure:
    failure = h.read_failure(letter.headers)
    assert failure is not None
    return failure


class TestMarks:
    @given(seqs=st.lists(st.integers(0, 50), max_size=40))
    def test_a_frame_at_or_below_the_mark_is_a_repeat(self, seqs: list[int]) -> None:
        marks, highest = HighWaterMarks(), -1
        for seq in seqs:
            assert marks.is_repeat(FrameId("a", 1, seq), LIVE, "p") == (seq <= highest)
            marks.advance(FrameId("a", 1, seq), LIVE, "p")
            highest = max(highest, seq)

    def test_cameras_epochs_lanes_and_pipelines_have_separate_marks(self) -> None:
        marks = HighWaterMarks()
        marks.advance(FrameId("a", 2, 9), LIVE, "p")
        assert marks.is_repeat(FrameId("a", 2, 9), LIVE, "p")
        others = [
            ("b", 2, LIVE, "p"),
            ("a", 1, LIVE, "p"),
            ("a", 3, LIVE, "p"),
            ("a", 2, LATE, "p"),
            ("a", 2, LIVE, "q"),
        ]
        for camera, epoch, lane, pipeline in others:
            assert not marks.is_repeat(FrameId(camera, epoch, 0), lane, pipeline)

    def test_the_oldest_epochs_are_forgotten_first(self) -> None:
        marks = HighWaterMarks()
        for epoch in range(EPOCHS_KEPT + 3):
            marks.advance(FrameId("a", epoch, 5), LIVE, "p")
        assert not marks.is_repeat(FrameId("a", 2, 5), LIVE, "p")
        assert marks.is_repeat(FrameId("a", 3, 5), LIVE, "p")


class TestJobs:
    def test_a_result_copies_the_account_of_its_item(self) -> None:
        accounted = item(1, rows=0).model_copy(update={"sampled": True, "withheld": {"still": 40, "rate": 3}})
        found = [
            decode(Result, out.value) for out in results(accept(record([accounted]), HighWaterMarks(), PIPELINES), 99)
        ]
        assert [(r.sampled, r.withheld) for r in found] == [(True, {"still": 40, "rate": 3})]

    def test_a_result_carries_motion_stationary_and_looked_at_boxes(self) -> None:
        moving, stationary = Box(1.0, 2.0, 3.0, 4.0), Box(5.0, 6.0, 7.0, 8.0)
        items = [item(1), item(2).model_copy(update={"motion": (moving,), "resting": (stationary,)}), item(3, rows=0)]
        job = accept(record(items), HighWaterMarks(), PIPELINES)
        for task in job.tasks.values():
            task.detections = []
        found = [decode(Result, out.value) for out in results(job, 99)]
        whole = (Box(0.0, 0.0, 64.0, 64.0),)
        assert [(r.motion, r.resting, r.looked_at) for r in found] == [
            (None, None, whole),
            ((moving,), (stationary,), whole),
            (None, None, ()),
        ]

    def test_items_without_pixels_become_results_in_batch_order(self) -> None:
        job = accept(record([item(0, rows=0), item(1), item(2, rows=0, reason="stale")]), HighWaterMarks(), PIPELINES)
        job.tasks[1].detections = []
        written = [decode(Result, r.value) for r in results(job, 5)]
        assert [(r.seq, r.outcome, r.reason) for r in written] == [
            (0, "empty", ""),
            (1, "classified", ""),
            (2, "shed", "stale"),
        ]
        assert all(r.topic == RESULTS for r in results(job, 5))

    def test_repeats_are_left_out_and_other_items_keep_their_pixels(self) -> None:
        marks = HighWaterMarks()
        accept(record([item(0, rows=2), item(1)]), marks, PIPELINES)
        job = accept(record([item(0, rows=2), item(1), item(2)]), marks, PIPELINES)
        assert [i.seq for i in job.items] == [2]
        assert job.rows == 1

    def test_an_unreadable_batch_is_parked_with_its_original_bytes(self) -> None:
        bad = record([item(0)])
        bad = LogRecord(bad.topic, 0, 3, None, bad.value[:100], bad.headers)
        job = accept(bad, HighWaterMarks(), PIPELINES)
        (letter,) = results(job, 0)
        assert (letter.topic, letter.value) == (DEADLETTER, bad.value)
        failure = h.read_failure(letter.headers)
        assert failure is not None
        assert (failure.topic, failure.offset, failure.error) == (BATCHES, 3, "truncated")
        assert h.frames_of(letter.headers) == (FrameId("a", 7, 0),)

    def test_items_of_an_unknown_pipeline_are_parked_one_by_one(self) -> None:
        job = accept(record([item(0), item(1, rows=0), item(2)], pipeline="other"), HighWaterMarks(), PIPELINES)
        assert job.settled
        written = results(job, 0)
        assert [r.topic for r in written] == [DEADLETTER, RESULTS, DEADLETTER]
        alone = decode(Batch, written[2].value)
        assert [i.seq for i in alone.items] == [2]
        assert written[2].headers[h.PIPELINE] == b"other"

    def test_frames_that_no_pipeline_takes_become_results(self) -> None:
        job = accept(record([item(0, rows=0)], pipeline="none"), HighWaterMarks(), PIPELINES)
        assert job.settled
        assert decode(Result, results(job, 0)[0].value).outcome == "empty"

    def test_a_replayed_batch_takes_the_lane_of_its_header(self) -> None:
        lane, marks = replay_lane("again"), HighWaterMarks()
        accept(record([item(0)]), marks, PIPELINES)
        job = accept(record([item(0)], lane=lane), marks, PIPELINES)
        job.tasks[0].detections = []
        (written,) = results(job, 0)
        assert decode(Result, written.value).lane == lane
        assert written.headers[h.LANE] == lane.encode()


class TestServing:
    def test_an_image_that_fails_the_model_does_not_fail_the_others(self) -> None:
        served = opened(FakeEngine(fails=lambda image: bool(image[0, 0, 0] == 66)))
        scheduler = Scheduler(lambda _: 32)
        jobs = [
            accept(record([item(n)], offset=n, first_pixel=66 if n == 2 else 1), HighWaterMarks(), PIPELINES)
            for n in range(4)
        ]
        for job in jobs:
            scheduler.add(TopicPartition(BATCHES, 0), job)
        merged = scheduler.next()
        assert merged is not None
        served.classify(merged)
        outcomes = [results(job, 0)[0] for job in jobs]
        assert [r.topic for r in outcomes] == [RESULTS, RESULTS, DEADLETTER, RESULTS]
        assert [d.label for d in decode(Result, outcomes[0].value).detections] == ["car"]
        assert decode(Result, outcomes[0].value).model == "regions@1"

    def merged(self, *records: LogRecord) -> tuple[MergedBatch, list[Job]]:
        scheduler = Scheduler(lambda _: 32)
        jobs = [accept(r, HighWaterMarks(), PIPELINES) for r in records]
        for job in jobs:
            scheduler.add(TopicPartition(BATCHES, job.record.offset), job)
        merged = scheduler.next()
        assert merged is not None
        return merged, jobs

    def test_a_batch_prepared_for_another_input_size_fails_alone(self) -> None:
        small = item(1).model_copy(update={"regions": (Region(Box(0, 0, 9, 9), Fit(1, 1, 0, 0), Inner(0, 0, 8, 8)),)})
        batch = Batch(pipeline="regions", height=8, width=8, channels=3, items=(small,), pixels=bytes(192))
        other = LogRecord(BATCHES, 0, 1, None, encode(batch), h.frame_headers([small.id], LIVE, pipeline="regions"))
        merged, jobs = self.merged(record([item(0)], offset=0), other, record([item(2)], offset=2))
        opened(FakeEngine()).classify(merged)
        assert [results(job, 0)[0].topic for job in jobs] == [RESULTS, DEADLETTER, RESULTS]
        letter = results(jobs[1], 0)[0]
        assert decode(Batch, letter.value).items[0].seq == 1
        assert b"prepared for" in h.failure_headers(failure_of(letter))["__connect.errors.exception.message"]

    @pytest.mark.parametrize("error", [KeyError("label"), ZeroDivisionError("scale"), ValueError("shape")])
    def test_any_decoder_error_parks_the_image_and_does_not_end_the_node(self, error: Exception) -> None:
        class FailingDecoder:
            def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
                if any(row.frame_width == 13 for row in rows):
                    raise error
                return [[] for _ in rows]

        bad = item(1).model_copy(update={"width": 13})
        merged, jobs = self.merged(record([item(0)], offset=0), record([bad], offset=1))
        opened(FakeEngine(), FailingDecoder()).classify(merged)
        assert [results(job, 0)[0].topic for job in jobs] == [RESULTS, DEADLETTER]

    def test_a_job_has_its_model_before_its_tasks_settle(self) -> None:
        merged, jobs = self.merged(record([item(0)]))
        seen: list[tuple[str, bool]] = []

        class RecordingDecoder:
            def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
                seen.append((jobs[0].model, jobs[0].settled))
                return [[] for _ in rows]

        opened(FakeEngine(), RecordingDecoder()).classify(merged)
        assert seen == [("regions@1", False)]

    def test_images_are_padded_with_the_models_grey(self) -> None:
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

    def test_a_pipeline_with_another_input_size_than_its_model_is_refused(self) -> None:
        model = Repository(MODELS).open("regions")
        pipeline = PipelineConfig(name="regions", model="regions", width=32, height=64)
        with pytest.raises(ManifestError, match=r"width = 32: regions@1 expects 64"):
            ServedModel(pipeline, model, FakeEngine, 1)


class TestScheduler:
    def job(self, tp: TopicPartition, offset: int, rows: int = 1, pipeline: str = "regions") -> Job:
        return accept(
            record([item(offset, camera=f"c{tp.partition}", rows=rows)], offset=offset, pipeline=pipeline),
            HighWaterMarks(),
            frozenset({"regions", "other"}),
        )

    @given(
        sizes=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5), st.booleans()), min_size=1, max_size=30),
        limit=st.integers(1, 12),
    )
    def test_each_job_is_scheduled_once_in_partition_order_and_within_the_row_limit(
        self, sizes: list[tuple[int, int, bool]], limit: int
    ) -> None:
        scheduler, wanted = Scheduler(lambda _: limit), {}
        for offset, (partition, rows, late) in enumerate(sizes):
            tp = TopicPartition(BATCHES_LATE if late else BATCHES, partition)
            scheduler.add(tp, self.job(tp, offset, rows))
            wanted.setdefault(tp, []).append(offset)
        assert scheduler.waiting == sum(rows for _, rows, _ in sizes)
        taken: dict[int, int] = {}
        while merged := scheduler.next():
            assert merged.rows <= limit or len(merged.jobs) == 1
            for job in merged.jobs:
                taken[job.record.offset] = len(taken)
        assert sorted(taken) == list(range(len(sizes)))
        for offsets in wanted.values():
            order = [taken[o] for o in offsets]
            assert order == sorted(order)

    def test_partitions_take_turns_even_if_one_has_more_jobs(self) -> None:
        scheduler, busy, calm = Scheduler(lambda _: 2), TopicPartition(BATCHES, 0), TopicPartition(BATCHES, 1)
        for offset in range(8):
            scheduler.add(busy, self.job(busy, offset))
        for offset in range(100, 102):
            scheduler.add(calm, self.job(calm, offset))
        order = [job.record.offset for _ in range(3) for job in scheduler.next().jobs]  # type: ignore[union-attr]
        assert order == [0, 1, 100, 101, 2, 3]

    def test_late_jobs_are_never_merged_into_a_live_batch(self) -> None:
        scheduler, late, live = Scheduler(lambda _: 8), TopicPartition(BATCHES_LATE, 0), TopicPartition(BATCHES, 1)
        scheduler.add(late, self.job(late, 0))
        scheduler.add(live, self.job(live, 1))
        assert [j.record.offset for j in scheduler.next().jobs] == [1]  # type: ignore[union-attr]

    def test_live_jobs_are_scheduled_before_late_jobs(self) -> None:
        scheduler = Scheduler(lambda _: 1)
        late, live = TopicPartition(BATCHES_LATE, 0), TopicPartition(BATCHES, 1)
        scheduler.add(late, self.job(late, 0))
        scheduler.add(live, self.job(live, 1))
        assert (scheduler.waiting_in(BATCHES), scheduler.waiting_in(BATCHES_LATE)) == (1, 1)
        assert [scheduler.next().jobs[0].record.offset for _ in range(2)] == [1, 0]  # type: ignore[union-attr]
        assert scheduler.waiting == 0

    def test_pipelines_are_not_mixed_and_a_slot_can_be_dropped(self) -> None:
        scheduler, tp = Scheduler(lambda _: 8), TopicPartition(BATCHES, 0)
        scheduler.add(tp, self.job(tp, 0))
        scheduler.add(tp, self.job(tp, 1, pipeline="other"))
        merged = scheduler.next()
        assert merged is not None
        assert [j.record.offset for j in merged.jobs] == [0]
        scheduler.drop(tp)
        assert scheduler.next() is None
