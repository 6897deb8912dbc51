"""Tests of high-water marks, and of jobs, which turn batch records into results and dead letters."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.node.jobs import EPOCHS_KEPT, SEEN_KEPT, HighWaterMarks, accept, results
from ingest.contract import headers as h
from ingest.contract.codec import MAX_RECORD_BYTES, decode, encode
from ingest.contract.identity import LATE, LIVE, FrameId, replay_lane
from ingest.contract.records import Batch, Box, Detection, Fit, Inner, Region, Result
from ingest.contract.topics import BATCHES, DEADLETTER, RESULTS
from ingest.kafka.log import LogRecord, require_size
from tests.engines.node.batches import PIPELINES, failure_of, item, record


class TestMarks:
    @given(seqs=st.lists(st.integers(0, 50), max_size=60))
    def test_a_seen_frame_is_a_repeat_and_an_unseen_frame_below_the_high_water_mark_is_out_of_order(
        self, seqs: list[int]
    ) -> None:
        marks, seen = HighWaterMarks(), set[int]()
        for seq in seqs:
            frame = FrameId("a", 1, seq)
            assert marks.is_repeat(frame, LIVE, "p") == (seq in seen)
            assert marks.is_out_of_order(frame, LIVE, "p") == (seq not in seen and seq < max(seen, default=-1))
            marks.advance(frame, LIVE, "p")
            seen.add(seq)

    def test_a_frame_too_far_below_the_high_water_mark_counts_as_a_repeat(self) -> None:
        marks = HighWaterMarks()
        for seq in range(0, 6 * SEEN_KEPT, 2):
            marks.advance(FrameId("a", 1, seq), LIVE, "p")
        assert marks.is_repeat(FrameId("a", 1, 1), LIVE, "p")
        assert marks.is_out_of_order(FrameId("a", 1, 6 * SEEN_KEPT - 3), LIVE, "p")

    def test_frames_before_the_first_result_read_at_a_takeover_count_as_repeats(self) -> None:
        marks = HighWaterMarks()
        for seq in (5, 7):
            marks.advance_past(LogRecord(RESULTS, 0, seq, None, b"", h.frame_headers([FrameId("a", 1, seq)], LIVE)))
        assert [seq for seq in range(8) if marks.is_repeat(FrameId("a", 1, seq), LIVE, "")] == [0, 1, 2, 3, 4, 5, 7]
        assert marks.is_out_of_order(FrameId("a", 1, 6), LIVE, "")

    def test_cameras_capture_runs_lanes_and_pipelines_have_separate_high_water_marks(self) -> None:
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

    def test_the_high_water_mark_that_advanced_least_recently_is_forgotten_first(self) -> None:
        marks = HighWaterMarks()
        for epoch in range(EPOCHS_KEPT):
            marks.advance(FrameId("a", 1000 + epoch, 5), LIVE, "p")
        marks.advance(FrameId("a", 1000, 6), LIVE, "p")
        marks.advance(FrameId("a", 1, 5), LIVE, "p")  # a lower epoch, as from a new spool
        assert [e for e in (1, 1000, 1001, 1002) if marks.is_repeat(FrameId("a", e, 5), LIVE, "p")] == [1, 1000, 1002]


class TestJobs:
    def test_a_frame_out_of_order_gets_a_shed_result_and_its_repeat_is_dropped(self) -> None:
        marks = HighWaterMarks()
        job = accept(record([item(0), item(2), item(1), item(2), item(1)]), marks, PIPELINES)
        assert [str(frame) for frame in job.out_of_order] == ["a/7/1"]
        for task in job.tasks.values():
            task.detections = []
        written = [decode(Result, out.value) for out in results(job, 99)]
        assert [(r.seq, r.outcome, r.reason) for r in written] == [
            (0, "classified", ""),
            (2, "classified", ""),
            (1, "shed", "out_of_order"),
        ]

    def test_a_result_has_the_withheld_counts_of_its_batch_item(self) -> None:
        accounted = item(1, rows=0).model_copy(update={"sampled": True, "withheld": {"still": 40, "rate": 3}})
        found = [
            decode(Result, out.value) for out in results(accept(record([accounted]), HighWaterMarks(), PIPELINES), 99)
        ]
        assert [(r.sampled, r.withheld) for r in found] == [(True, {"still": 40, "rate": 3})]

    def test_a_result_has_the_moving_stationary_and_classified_boxes_of_its_frame(self) -> None:
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

    def test_batch_items_without_pixels_become_results_in_batch_order(self) -> None:
        job = accept(record([item(0, rows=0), item(1), item(2, rows=0, reason="stale")]), HighWaterMarks(), PIPELINES)
        job.tasks[1].detections = []
        written = [decode(Result, r.value) for r in results(job, 5)]
        assert [(r.seq, r.outcome, r.reason) for r in written] == [
            (0, "empty", ""),
            (1, "classified", ""),
            (2, "shed", "stale"),
        ]
        assert all(r.topic == RESULTS for r in results(job, 5))

    def test_repeated_batch_items_are_dropped_and_other_items_keep_their_pixels(self) -> None:
        marks = HighWaterMarks()
        accept(record([item(0, rows=2), item(1)]), marks, PIPELINES)
        job = accept(record([item(0, rows=2), item(1), item(2)]), marks, PIPELINES)
        assert [i.seq for i in job.items] == [2]
        job.measure_waiting()
        assert job.waiting_rows == 1

    def test_an_unreadable_batch_becomes_a_dead_letter_with_its_original_bytes(self) -> None:
        bad = record([item(0)])
        bad = LogRecord(bad.topic, 0, 3, None, bad.value[:100], bad.headers)
        job = accept(bad, HighWaterMarks(), PIPELINES)
        (letter,) = results(job, 0)
        assert (letter.topic, letter.value) == (DEADLETTER, bad.value)
        failure = h.read_failure(letter.headers)
        assert failure is not None
        assert (failure.topic, failure.offset, failure.error) == (BATCHES, 3, "truncated")
        assert h.frames_of(letter.headers) == (FrameId("a", 7, 0),)

    def test_each_batch_item_of_an_unknown_pipeline_becomes_a_dead_letter(self) -> None:
        job = accept(record([item(0), item(1, rows=0), item(2)], pipeline="other"), HighWaterMarks(), PIPELINES)
        assert job.settled
        written = results(job, 0)
        assert [r.topic for r in written] == [DEADLETTER, RESULTS, DEADLETTER]
        alone = decode(Batch, written[2].value)
        assert [i.seq for i in alone.items] == [2]
        assert written[2].headers[h.PIPELINE] == b"other"

    def test_frames_that_no_pipeline_accepts_become_results_without_detections(self) -> None:
        job = accept(record([item(0, rows=0)], pipeline="none"), HighWaterMarks(), PIPELINES)
        assert job.settled
        assert decode(Result, results(job, 0)[0].value).outcome == "empty"

    def test_a_replayed_batch_is_assigned_to_the_lane_in_its_header(self) -> None:
        lane, marks = replay_lane("again"), HighWaterMarks()
        accept(record([item(0)]), marks, PIPELINES)
        job = accept(record([item(0)], lane=lane), marks, PIPELINES)
        job.tasks[0].detections = []
        (written,) = results(job, 0)
        assert decode(Result, written.value).lane == lane
        assert written.headers[h.LANE] == lane.encode()

    def test_a_frame_whose_result_exceeds_the_record_size_limit_becomes_a_dead_letter(self) -> None:
        job = accept(record([item(0), item(1)]), HighWaterMarks(), PIPELINES)
        found = Detection(box=Box(0, 0, 9, 9), label="a" * MAX_RECORD_BYTES, class_id=0, score=0.9)
        job.tasks[0].detections, job.tasks[1].detections = [found], []
        letter, written = results(job, 5)
        assert (letter.topic, failure_of(letter).error) == (DEADLETTER, "oversize")
        assert [one.seq for one in decode(Batch, letter.value).items] == [0]
        assert decode(Result, written.value).seq == 1

    @pytest.mark.parametrize("items", [1, 2])
    def test_dead_letters_of_a_batch_near_the_record_size_limit_stay_within_the_limit(self, items: int) -> None:
        """A foreign producer may leave out fields that have defaults, so its batch is larger when encoded again."""
        value = largest_batch(items)
        received = LogRecord(BATCHES, 0, 0, None, value)
        letter = results(accept(received, HighWaterMarks(), PIPELINES), 0)[0]
        assert letter.topic == DEADLETTER
        require_size(letter)
        assert (letter.value == value) == (items == 1)


def largest_batch(items: int) -> bytes:
    """Return a batch of an unknown pipeline, of the largest size, without the fields that have defaults."""
    side = 4096

    def encoded(rows: int) -> bytes:
        inners = Inner(0, 0, side, side - 1), Inner(0, 0, 1, rows)
        regions = tuple(Region(Box(0, 0, 9, 9), Fit(1, 1, 0, 0), inner) for inner in inners)
        first = item(1).model_copy(update={"regions": regions})
        found = [first, item(2, rows=0)][:items]
        pixels = bytes(side * (side - 1) + rows)
        batch = Batch(pipeline="unheard-of", height=side, width=side, channels=1, items=tuple(found), pixels=pixels)
        fields = msgpack.unpackb(encode(batch, 2 * MAX_RECORD_BYTES))
        for each in fields["items"]:
            for name in ("motion", "resting", "sampled", "reason", "withheld", "traceparent"):
                del each[name]
        data: bytes = msgpack.packb(fields)
        return data

    return encoded(1 + MAX_RECORD_BYTES - len(encoded(1)) - 8)
