"""HighWaterMarks, jobs, scheduler and serving: what the node decides, without Kafka."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.backends.fake import FakeEngine
from engines.decoders import FrameRegion
from engines.node.jobs import Job, accept, results
from engines.node.marks import EPOCHS_KEPT, HighWaterMarks
from engines.node.scheduler import MergedBatch, Scheduler
from engines.node.serving import ServedModel
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.identity import LATE, LIVE, FrameId, replay_lane
from ingest.contract.records import Batch, BatchItem, Box, Fit, FrameRef, Inner, Region, Result
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


def served(engine: FakeEngine) -> ServedModel:
    model = Repository(MODELS).open("regions")
    pipeline = PipelineConfig(name="regions", model="regions", width=64, height=64, regions="motion")
    serving = ServedModel(pipeline, model, lambda: engine, 1)
    serving.open()
    return serving


def failure_of(letter: Outgoing) -> h.Failure:
    failure = h.read_failure(letter.headers)
    assert failure is not None
    return failure


class TestMarks:
    @given(seqs=st.lists(st.integers(0, 50), max_size=40))
    def test_whatever_is_not_above_the_mark_is_a_repeat(self, seqs: list[int]) -> None:
        marks, highest = HighWaterMarks(), -1
        for seq in seqs:
            assert marks.is_repeat(FrameId("a", 1, seq), LIVE, "p") == (seq <= highest)
            marks.advance(FrameId("a", 1, seq), LIVE, "p")
            highest = max(highest, seq)

    def test_cameras_epochs_lanes_and_pipelines_are_apart(self) -> None:
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

    def test_only_the_oldest_epochs_are_forgotten(self) -> None:
        marks = HighWaterMarks()
        for epoch in range(EPOCHS_KEPT + 3):
            marks.advance(FrameId("a", epoch, 5), LIVE, "p")
        assert not marks.is_repeat(FrameId("a", 2, 5), LIVE, "p")
        assert marks.is_repeat(FrameId("a", 3, 5), LIVE, "p")


class TestJobs:
    def test_a_result_says_of_its_frame_what_the_item_says(self) -> None:
        told = item(1, rows=0).model_copy(update={"sampled": True, "withheld": {"still": 40, "rate": 3}})
        found = [
            decode(Result, out.value) for out in results(accept(record([told]), HighWaterMarks(), PIPELINES), 99)
        ]
        assert [(r.sampled, r.withheld) for r in found] == [(True, {"still": 40, "rate": 3})]

    def test_a_result_says_where_something_moved_or_rests_and_where_the_model_looked(self) -> None:
        moving, rests = Box(1.0, 2.0, 3.0, 4.0), Box(5.0, 6.0, 7.0, 8.0)
        items = [item(1), item(2).model_copy(update={"motion": (moving,), "resting": (rests,)}), item(3, rows=0)]
        job = accept(record(items), HighWaterMarks(), PIPELINES)
        for part in job.tasks.values():
            part.found = []
        found = [decode(Result, out.value) for out in results(job, 99)]
        whole = (Box(0.0, 0.0, 64.0, 64.0),)
        assert [(r.motion, r.resting, r.looked_at) for r in found] == [
            (None, None, whole),
            ((moving,), (rests,), whole),
            (None, None, ()),
        ]

    def test_items_without_pixels_pass_as_results_in_their_place(self) -> None:
        job = accept(record([item(0, rows=0), item(1), item(2, rows=0, reason="stale")]), HighWaterMarks(), PIPELINES)
        job.tasks[1].found = []
        written = [decode(Result, r.value) for r in results(job, 5)]
        assert [(r.seq, r.outcome, r.reason) for r in written] == [
            (0, "empty", ""),
            (1, "classified", ""),
            (2, "shed", "stale"),
        ]
        assert all(r.topic == RESULTS for r in results(job, 5))

    def test_repeats_are_left_out_and_the_rest_keeps_its_own_pixels(self) -> None:
        marks = HighWaterMarks()
        accept(record([item(0, rows=2), item(1)]), marks, PIPELINES)
        job = accept(record([item(0, rows=2), item(1), item(2)]), marks, PIPELINES)
        assert [i.seq for i in job.items] == [2]
        assert job.rows == 1

    def test_a_batch_that_cannot_be_read_is_parked_with_its_bytes(self) -> None:
        bad = record([item(0)])
        bad = LogRecord(bad.topic, 0, 3, None, bad.value[:100], bad.headers)
        job = accept(bad, HighWaterMarks(), PIPELINES)
        (letter,) = results(job, 0)
        assert (letter.topic, letter.value) == (DEADLETTER, bad.value)
        failure = h.read_failure(letter.headers)
        assert failure is not None
        assert (failure.topic, failure.offset, failure.error) == (BATCHES, 3, "truncated")
        assert h.frames_of(letter.headers) == (FrameId("a", 7, 0),)

    def test_an_unknown_pipeline_is_parked_frame_by_frame(self) -> None:
        job = accept(record([item(0), item(1, rows=0), item(2)], pipeline="other"), HighWaterMarks(), PIPELINES)
        assert job.settled
        written = results(job, 0)
        assert [r.topic for r in written] == [DEADLETTER, RESULTS, DEADLETTER]
        alone = decode(Batch, written[2].value)
        assert [i.seq for i in alone.items] == [2]
        assert written[2].headers[h.PIPELINE] == b"other"

    def test_unrouted_frames_need_no_pipeline(self) -> None:
        job = accept(record([item(0, rows=0)], pipeline="none"), HighWaterMarks(), PIPELINES)
        assert job.settled
        assert decode(Result, results(job, 0)[0].value).outcome == "empty"

    def test_a_replay_is_on_its_own_lane(self) -> None:
        lane, marks = replay_lane("again"), HighWaterMarks()
        accept(record([item(0)]), marks, PIPELINES)
        job = accept(record([item(0)], lane=lane), marks, PIPELINES)
        job.tasks[0].found = []
        (written,) = results(job, 0)
        assert decode(Result, written.value).lane == lane
        assert written.headers[h.LANE] == lane.encode()


class TestServing:
    def test_a_picture_that_makes_the_model_fail_fails_alone(self) -> None:
        engine = FakeEngine(fails=lambda image: bool(image[0, 0, 0] == 66))
        serving = served(engine)
        scheduler = Scheduler(lambda _: 32)
        jobs = [
            accept(record([item(n)], offset=n, first_pixel=66 if n == 2 else 1), HighWaterMarks(), PIPELINES)
            for n in range(4)
        ]
        for job in jobs:
            scheduler.add(TopicPartition(BATCHES, 0), job)
        merged = scheduler.next()
        assert merged is not None
        serving.classify(merged)
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

    def test_a_batch_for_another_input_fails_alone(self) -> None:
        small = item(1).model_copy(update={"regions": (Region(Box(0, 0, 9, 9), Fit(1, 1, 0, 0), Inner(0, 0, 8, 8)),)})
        batch = Batch(pipeline="regions", height=8, width=8, channels=3, items=(small,), pixels=bytes(192))
        other = LogRecord(BATCHES, 0, 1, None, encode(batch), h.frame_headers([small.id], LIVE, pipeline="regions"))
        merged, jobs = self.merged(record([item(0)], offset=0), other, record([item(2)], offset=2))
        served(FakeEngine()).classify(merged)
        assert [results(job, 0)[0].topic for job in jobs] == [RESULTS, DEADLETTER, RESULTS]
        letter = results(jobs[1], 0)[0]
        assert decode(Batch, letter.value).items[0].seq == 1
        assert b"prepared for" in h.failure_headers(failure_of(letter))["__connect.errors.exception.message"]

    @pytest.mark.parametrize("error", [KeyError("label"), ZeroDivisionError("scale"), ValueError("shape")])
    def test_whatever_a_decoder_raises_parks_the_picture_and_not_the_node(self, error: Exception) -> None:
        serving = served(FakeEngine())

        class Broken:
            def decode(self, outputs: object, rows: list[FrameRegion]) -> list[list[object]]:
                if any(row.frame_width == 13 for row in rows):
                    raise error
                return [[] for _ in rows]

        serving._decoder = Broken()  # type: ignore[assignment]
        bad = item(1).model_copy(update={"width": 13})
        merged, jobs = self.merged(record([item(0)], offset=0), record([bad], offset=1))
        serving.classify(merged)
        assert [results(job, 0)[0].topic for job in jobs] == [RESULTS, DEADLETTER]

    def test_a_job_knows_its_model_before_it_can_be_written(self) -> None:
        serving, seen = served(FakeEngine()), []
        merged, jobs = self.merged(record([item(0)]))
        settle = serving._settle
        serving._settle = lambda *args: (seen.append(jobs[0].model), settle(*args))  # type: ignore[assignment, func-returns-value]
        serving.classify(merged)
        assert seen == ["regions@1"]

    def test_padding_is_the_models_and_pixels_are_where_they_belong(self) -> None:
        engine, region = FakeEngine(), Region(Box(0, 0, 9, 9), Fit(1, 1, 0, 0), Inner(16, 0, 48, 64))
        seen: list[np.ndarray] = []
        plain = engine._infer_impl
        engine._infer_impl = lambda images: (seen.append(images), plain(images))[1]  # type: ignore[method-assign]
        wide = item(1).model_copy(update={"regions": (region,)})
        batch = Batch(
            pipeline="regions", height=64, width=64, channels=3, items=(wide,), pixels=bytes([7]) * (64 * 32 * 3)
        )
        merged, _ = self.merged(LogRecord(BATCHES, 0, 0, None, encode(batch), {}))
        served(engine).classify(merged)
        (row,) = seen[-1]
        assert (row[:, 16:48] == 7).all()
        assert (row[:, :16] == 114).all()
        assert (row[:, 48:] == 114).all()

    def test_a_pipeline_that_prepares_for_another_model_is_refused(self) -> None:
        model = Repository(MODELS).open("regions")
        pipeline = PipelineConfig(name="regions", model="regions", width=32, height=64)
        with pytest.raises(Exception, match=r"width = 32: regions@1 expects 64"):
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
    def test_every_job_comes_once_in_its_partitions_order_and_batches_keep_to_the_limit(
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

    def test_partitions_take_turns_although_one_has_more(self) -> None:
        scheduler, busy, calm = Scheduler(lambda _: 2), TopicPartition(BATCHES, 0), TopicPartition(BATCHES, 1)
        for offset in range(8):
            scheduler.add(busy, self.job(busy, offset))
        for offset in range(100, 102):
            scheduler.add(calm, self.job(calm, offset))
        order = [job.record.offset for _ in range(3) for job in scheduler.next().jobs]  # type: ignore[union-attr]
        assert order == [0, 1, 100, 101, 2, 3]

    def test_late_never_fills_up_a_live_batch(self) -> None:
        scheduler, late, live = Scheduler(lambda _: 8), TopicPartition(BATCHES_LATE, 0), TopicPartition(BATCHES, 1)
        scheduler.add(late, self.job(late, 0))
        scheduler.add(live, self.job(live, 1))
        assert [j.record.offset for j in scheduler.next().jobs] == [1]  # type: ignore[union-attr]

    def test_live_goes_before_late(self) -> None:
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
