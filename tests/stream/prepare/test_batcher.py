"""Tests of batching.

Tests that batches close in time and in order, and that each offset is finished once, with the last batch of its
frame.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.codec import MAX_RECORD_BYTES, decode
from ingest.contract.headers import FRAMES, LANE, PIPELINE
from ingest.contract.records import Batch, BatchItem, Box, FrameRef
from ingest.contract.topics import BATCHES
from ingest.exceptions import Oversize
from ingest.picture import draw
from ingest.runtime.clock import ManualClock
from ingest.site import PipelineConfig
from stream.prepare.batcher import (
    MAX_ITEMS_BYTES,
    MAX_PIXEL_BYTES,
    UNROUTED,
    BatchEntry,
    Batcher,
    PipelinePlan,
    plans,
)
from stream.prepare.regions import windows
from stream.runner.processor import Work
from tests.modelinput import model_input

SIZE = (32, 32)
ROW = 16 * 16 * 3


def plan(name: str = "a", **values: object) -> PipelinePlan:
    config = {"name": name, "model": "m", "width": 16, "height": 16, "max_items": 4, "max_delay_s": 0.05, **values}
    return plans([PipelineConfig(**config)])[0]


def entry(
    where: PipelinePlan, offset: int, motion: int = 1, outcome: str = "classify", lane: str = "live", boxes: int = 0
) -> BatchEntry:
    """Return the entry of a frame whose pixels equal its offset, with ``motion`` regions for a motion pipeline."""
    moving = [Box(8.0 * n, 0.0, 8.0 * n + 6.0, 6.0) for n in range(motion)]
    found = windows(where.config, SIZE, moving, where.regions) if where.config and outcome == "classify" else ()
    item = BatchItem(
        camera="cam",
        epoch=1,
        seq=offset,
        lane=lane,
        captured_ns=0,
        width=SIZE[0],
        height=SIZE[1],
        source=FrameRef("frames", 3, offset),
        pipelines=("a",),
        motion=(Box(0.0, 0.0, 9.0, 9.0),) * boxes,
        outcome=outcome,
        regions=tuple(w.region for w in found),
        traceparent=f"t{offset}",
    )
    image = np.full((*SIZE, 3), offset % 256, np.uint8)
    colour = where.config.colour if where.config else ""
    return BatchEntry.of(where, item, tuple(draw(image, window, colour) for window in found))


def rows(batch: Batch) -> int:
    return sum(len(item.regions) for item in batch.items)


def batches(works: list[Work]) -> list[Batch]:
    return [decode(Batch, record.value) for work in works for record in work.records]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def batcher(clock: ManualClock) -> Batcher:
    return Batcher(BATCHES, 3, clock)


def test_a_batch_closes_at_its_maximum_number_of_items(batcher: Batcher) -> None:
    a = plan()
    assert [batcher.add(o, [entry(a, o)]) for o in range(3)] == [[], [], []]
    (work,) = batcher.add(3, [entry(a, 3)])
    assert work.done == (0, 1, 2, 3)
    (batch,) = batches([work])
    assert [item.seq for item in batch.items] == [0, 1, 2, 3]
    assert [row.max() for row in model_input(batch)] == [0, 1, 2, 3]
    assert batcher.deadline is None


def test_a_batch_record_has_its_topic_partition_and_headers(batcher: Batcher) -> None:
    batcher.add(7, [entry(plan(), 7)])
    (work,) = batcher.flush()
    (record,) = work.records
    assert (record.topic, record.partition, record.key) == (BATCHES, 3, None)
    assert record.headers == {
        FRAMES: b"cam/1/7",
        LANE: b"live",
        "traceparent": b"t7",
        PIPELINE: b"a",
    }


def test_a_batch_closes_at_the_deadline_of_its_first_item(batcher: Batcher, clock: ManualClock) -> None:
    a = plan()
    batcher.add(0, [entry(a, 0)])
    clock.advance(0.04)
    batcher.add(1, [entry(a, 1)])
    assert batcher.deadline == pytest.approx(0.05)
    assert batcher.due() == []
    clock.advance(0.011)
    (work,) = batcher.due()
    assert work.done == (0, 1)
    assert batcher.deadline is None
    assert batcher.due() == []


def test_a_batch_closes_at_its_maximum_number_of_bytes(batcher: Batcher) -> None:
    small = plan(max_bytes=64 * 1024, max_items=64, width=100, height=100)  # 30 000 bytes a row: two fit
    assert small.rows == 2
    assert batcher.add(0, [entry(small, 0)]) == []
    (work,) = batcher.add(1, [entry(small, 1)])
    assert work.done == (0, 1)


def test_a_frame_whose_regions_do_not_fit_goes_into_the_next_batch(batcher: Batcher) -> None:
    a = plan(regions="motion", max_bytes=64 * 1024, width=80, height=80, max_regions=8)  # 19 200 bytes: three rows
    batcher.add(0, [entry(a, 0, motion=2)])
    (work,) = batcher.add(1, [entry(a, 1, motion=2)])
    assert work.done == (0,)
    (work,) = batcher.flush()
    assert work.done == (1,)
    assert rows(batches([work])[0]) == 2


def test_a_frame_has_at_most_as_many_regions_as_fit_into_a_batch() -> None:
    a = plan(regions="motion", max_bytes=64 * 1024, width=80, height=80, max_regions=8)
    assert len(entry(a, 0, motion=4).pictures) == a.regions == a.rows == 3


def test_a_frame_of_two_pipelines_is_finished_when_its_second_batch_is_written(batcher: Batcher) -> None:
    a, b = plan("a", max_items=2), plan("b", max_items=3)
    assert batcher.add(0, [entry(a, 0), entry(b, 0)]) == []
    (work,) = batcher.add(1, [entry(a, 1), entry(b, 1)])
    assert (batches([work])[0].pipeline, work.done) == ("a", ())
    (work,) = batcher.add(2, [entry(a, 2), entry(b, 2)])
    assert (batches([work])[0].pipeline, work.done) == ("b", (0, 1))
    (work,) = batcher.flush()
    assert (batches([work])[0].pipeline, work.done) == ("a", (2,))


def test_frames_to_classify_empty_frames_and_shed_frames_keep_their_order_in_batches(batcher: Batcher) -> None:
    a = plan()
    works = []
    for offset, outcome in enumerate(["classify", "empty", "shed", "classify", "empty"]):
        works += batcher.add(offset, [entry(a, offset, outcome=outcome)])
    works += batcher.flush()
    items = [item for batch in batches(works) for item in batch.items]
    assert [item.seq for item in items] == [0, 1, 2, 3, 4]
    assert [rows(batch) for batch in batches(works)] == [2, 0]


def test_live_and_late_frames_have_separate_batches(batcher: Batcher) -> None:
    a = plan()
    batcher.add(0, [entry(a, 0)])
    batcher.add(1, [entry(a, 1, lane="replay-x")])
    found = {work.records[0].headers[LANE]: work.done for work in batcher.flush()}
    assert found == {b"live": (0,), b"replay-x": (1,)}


def test_frames_without_a_pipeline_are_batched_without_pixels(batcher: Batcher, clock: ManualClock) -> None:
    batcher.add(0, [entry(UNROUTED, 0, outcome="empty")])
    clock.advance(UNROUTED.max_delay_s)
    (batch,) = batches(batcher.due())
    assert (batch.pipeline, batch.pixels, model_input(batch).size) == ("none", b"", 0)


def test_pipelines_with_a_reserved_name_or_an_oversize_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="reserved for frames without a pipeline"):
        plan("none")
    with pytest.raises(ValueError, match="bytes per picture"):
        plan(width=4000, height=4000)


def test_the_largest_batch_fits_into_a_kafka_record(batcher: Batcher) -> None:
    wide = plan(regions="motion", max_bytes=10**9, max_items=64, max_regions=64, width=640, height=640)
    assert wide.rows * 640 * 640 * 3 <= MAX_PIXEL_BYTES
    works = [w for o in range(6) for w in batcher.add(o, [entry(wide, o, motion=4)])]
    assert works
    assert all(len(work.records[0].value) <= MAX_RECORD_BYTES for work in works)


def test_a_batch_of_items_with_many_boxes_closes_before_it_exceeds_the_record_size(batcher: Batcher) -> None:
    wide = plan(max_bytes=10**9, max_items=64, width=640, height=640)
    heavy = [entry(wide, offset, boxes=10_000) for offset in range(12)]
    works = [w for offset, each in enumerate(heavy) for w in batcher.add(offset, [each])] + batcher.flush()
    assert [offset for work in works for offset in work.done] == list(range(12))
    assert all(len(work.records[0].value) <= MAX_RECORD_BYTES for work in works)
    assert 1 < len(works) < 12


def test_a_batch_item_larger_than_any_batch_raises_oversize() -> None:
    with pytest.raises(Oversize, match=str(MAX_ITEMS_BYTES)):
        entry(plan(), 0, boxes=100_000)


frames = st.lists(
    st.tuples(
        st.sampled_from(["classify", "empty", "shed"]),
        st.integers(1, 4),
        st.sets(st.sampled_from(["a", "b", "c"]), min_size=1),
        st.sampled_from(["live", "replay-x"]),
        st.floats(0, 0.06),
    ),
    max_size=40,
)


@given(frames)
def test_every_record_offset_is_finished_once_after_all_batches_with_its_frame(
    history: list[tuple[str, int, set[str], str, float]],
) -> None:
    clock = ManualClock()
    batcher = Batcher(BATCHES, 3, clock)
    known = {
        "a": plan("a", max_items=3),
        "b": plan("b", regions="motion", max_items=5, width=80, height=80, max_bytes=64 * 1024),
        "c": plan("c", max_items=2, max_delay_s=0.02),
    }
    works: list[Work] = []
    for offset, (outcome, motion, wanted, lane, pause_s) in enumerate(history):
        works += batcher.add(offset, [entry(known[n], offset, motion, outcome, lane) for n in sorted(wanted)])
        clock.advance(pause_s)
        works += batcher.due()
        assert batcher.deadline is None or batcher.deadline > clock.monotonic()
    works += batcher.flush()

    written: dict[tuple[str, str], list[int]] = {}
    seen: dict[int, set[str]] = {offset: set() for offset in range(len(history))}
    finished: list[int] = []
    for work in works:
        for batch in batches([work]):
            assert len(batch.items) <= known[batch.pipeline].max_items
            assert rows(batch) <= known[batch.pipeline].rows
            for item in batch.items:
                written.setdefault((batch.pipeline, item.lane), []).append(item.seq)
                seen[item.seq].add(batch.pipeline)
        for offset in work.done:
            assert seen[offset] == history[offset][2]
        finished += work.done
    assert sorted(finished) == list(range(len(history)))
    assert all(order == sorted(order) for order in written.values())
    assert batcher.deadline is None


def test_a_batch_closes_before_its_pictures_and_frames_exceed_the_maximum_size(batcher: Batcher) -> None:
    a = plan(max_bytes=64 * 1024)
    large = [replace(entry(a, offset), frame=bytes(30_000)) for offset in range(3)]
    huge = replace(entry(a, 3), frame=bytes(100_000))
    assert [len(batcher.add(offset, [one])) for offset, one in enumerate([*large, huge])] == [0, 0, 1, 1]
