"""Tests of the whole stage in the memory runner: batches, dead letters, shedding, replays."""

from __future__ import annotations

import cv2
import msgpack
import numpy as np
import pytest
from structlog.testing import capture_logs

from ingest import picture as encoded_picture
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.crop import CropWindow
from ingest.contract.identity import FrameId
from ingest.contract.records import Batch, Box, Heartbeat, WithheldInterval
from ingest.contract.topics import BATCHES_LATE, FRAMES
from ingest.site import PipelineConfig
from ingest.site.topic.view import Config
from stream.prepare.denoise import TemporalDenoiser
from stream.prepare.stage import PrepareStage
from stream.runner.memory import MemoryRunner
from stream.runner.processor import Configurable
from tests.modelinput import model_input
from tests.stream.prepare.bench import (
    FULL,
    HEIGHT,
    MOTION,
    PARTITION,
    TRACE,
    WIDTH,
    PrepareBench,
    frame,
    picture,
    pipeline,
)


async def test_a_frame_becomes_a_batch_item_for_each_pipeline() -> None:
    bench = PrepareBench.of(FULL, MOTION)
    account = WithheldInterval(camera="gate", epoch=1, first=2, last=4, counts={"still": 3})
    moving = (Box(8.0, 8.0, 24.0, 24.0), Box(40.0, 20.0, 60.0, 40.0))
    await bench.give(frame(5, motion=moving, account=account, captured_ns=77, sampled=True))
    found = {batch.pipeline: (record, batch) for record, batch in await bench.batches()}
    assert set(found) == {"full", "moving"}
    record, batch = found["moving"]
    (item,) = batch.items
    assert item.id == FrameId("gate", 1, 5)
    assert (item.outcome, item.pipelines, item.lane) == ("classify", ("full", "moving"), "live")
    assert (item.captured_ns, item.withheld, item.traceparent) == (77, {"still": 3}, TRACE)
    assert item.sampled
    assert item.source == (FRAMES, PARTITION, 0)
    assert {region.box for region in item.regions} == set(moving)
    assert model_input(batch).shape == (2, 16, 16, 3)
    assert record.headers[h.PIPELINE] == b"moving"
    assert h.frames_of(record.headers) == (item.id,)
    assert await bench.committed() == 1


async def test_a_batch_has_the_pixels_of_its_frames() -> None:
    bench = PrepareBench.of(FULL)
    for seq, level in enumerate([10, 120, 230]):
        await bench.give(frame(seq, image=picture(level)))
    ((_, batch),) = await bench.batches()
    assert [int(row.mean()) for row in model_input(batch)] == pytest.approx([10, 120, 230], abs=1)


async def test_a_pipeline_gets_only_frames_of_its_configured_cameras() -> None:
    bench = PrepareBench.of(pipeline("full", cameras=("gate",)), pipeline("other", cameras=("yard",)))
    await bench.give(frame(0))
    assert [(i.pipelines, i.outcome) for i in await bench.items()] == [(("full",), "classify")]


async def test_a_single_picture_goes_to_the_pipeline_that_its_header_names() -> None:
    bench = PrepareBench.of(FULL, pipeline("yard", cameras=("yard",)))
    await bench.give(frame(0), sightline_pipeline=b"yard")
    ((_, batch),) = await bench.batches()
    assert (batch.pipeline, batch.items[0].pipelines, batch.items[0].outcome) == ("yard", ("yard",), "classify")


async def test_a_single_picture_for_an_unknown_pipeline_gets_the_outcome_unrouted() -> None:
    bench = PrepareBench.of(FULL)
    await bench.give(frame(0), sightline_pipeline=b"\xff")
    (item,) = await bench.items()
    assert (item.pipelines, item.outcome, item.reason) == (("none",), "empty", "unrouted")


async def test_the_pixels_of_a_single_picture_do_not_depend_on_earlier_pictures() -> None:
    bench = PrepareBench.of(pipeline("full", denoise="auto", width=WIDTH, height=HEIGHT))
    noise = np.random.default_rng(3).normal(100.0, 12.0, (2, HEIGHT, WIDTH, 3)).clip(0, 255).astype(np.uint8)
    jpegs = [cv2.imencode(".jpg", image)[1].tobytes() for image in noise]
    for seq, jpeg in enumerate([jpegs[0], jpegs[1], jpegs[0]]):
        await bench.give(frame(seq, image=jpeg), sightline_pipeline=b"full")
    ((_, batch),) = await bench.batches()
    first, other, again = model_input(batch)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


async def test_a_frame_without_a_pipeline_gets_the_outcome_unrouted() -> None:
    bench = PrepareBench.of(pipeline("other", cameras=("yard",)))
    await bench.give(frame(0))
    ((record, batch),) = await bench.batches()
    (item,) = batch.items
    assert (batch.pipeline, item.pipelines, item.outcome, item.reason) == ("none", ("none",), "empty", "unrouted")
    assert record.headers[h.PIPELINE] == b"none"
    assert await bench.committed() == 1


async def test_a_frame_larger_than_the_models_input_is_stored_once_in_its_batch_with_a_region_for_each_tile() -> None:
    bench = PrepareBench.of(pipeline("tiled", regions="tiles", width=32, height=32, max_regions=8))
    await bench.give(frame(0))
    ((_, batch),) = await bench.batches()
    (item,) = batch.items
    boxes = [region.box for region in item.regions]
    assert boxes[0] == Box(0, 0, WIDTH, HEIGHT)
    assert len(boxes) == 7
    assert {(box.width, box.height) for box in boxes[1:]} == {(32, 32)}
    assert (item.cropped, len(batch.frames)) == (False, len(picture()))


async def test_a_frame_without_motion_has_no_regions_for_a_motion_pipeline() -> None:
    bench = PrepareBench.of(FULL, MOTION)
    await bench.give(frame(0, motion=()))
    ends = {(b.pipeline, i.outcome, i.reason) for _, b in await bench.batches() for i in b.items}
    assert ends == {("full", "classify", ""), ("moving", "empty", "still")}


async def test_stationary_objects_are_cropped_for_motion_pipelines_and_listed_in_each_item() -> None:
    bench = PrepareBench.of(FULL, MOTION)
    moving, rests = Box(30.0, 30.0, 40.0, 40.0), Box(2.0, 2.0, 22.0, 22.0)
    outside, odd = Box(900.0, 0.0, 950.0, 9.0), Box(0.0, 0.0, float(WIDTH), 9.0)
    for seq, (motion, resting) in enumerate(
        [
            ((), (rests,)),
            ((moving,), (rests,)),
            ((), ()),
            ((), (outside,)),
            ((outside,), (rests,)),
            ((odd,) * 200, ()),
        ]
    ):
        await bench.give(frame(seq, motion=motion, resting=resting))
    items = {(b.pipeline, i.seq): i for _, b in await bench.batches() for i in b.items}
    cropped = [[region.box for region in items["moving", seq].regions] for seq in range(5)]
    assert cropped == [[rests], [moving, rests], [], [], [Box(0.0, 0.0, WIDTH, HEIGHT)]]
    listed = [(items["moving", seq].motion, items["moving", seq].resting) for seq in range(6)]
    assert listed[:4] == [((), (rests,)), ((moving,), (rests,)), ((), ()), ((), None)]
    assert listed[4:] == [(None, (rests,)), (None, ())]  # unusable or too many boxes: the motion is unknown
    assert {(i.motion, i.resting) for (name, _), i in items.items() if name == "full"} == {(None, None)}


async def test_without_motion_boxes_from_the_agent_the_region_is_the_full_frame() -> None:
    bench = PrepareBench.of(MOTION)
    await bench.give(frame(0, motion=None))
    (item,) = await bench.items()
    assert [r.box for r in item.regions] == [Box(0, 0, WIDTH, HEIGHT)]


async def test_stale_frames_are_shed_only_on_the_live_lane() -> None:
    fresh = pipeline("full", freshness_s=2.0, max_items=4)
    bench, late = PrepareBench.of(fresh), PrepareBench.of(fresh, lane="late")
    old, new = bench.clock.now_ns() - 3 * 10**9, bench.clock.now_ns() - 10**9
    for seq, captured_ns in enumerate([old, new, old]):
        await bench.give(frame(seq, captured_ns=captured_ns))
        await late.give(frame(seq, captured_ns=captured_ns))
    await bench.give(frame(3, captured_ns=old), sightline_lane=b"replay-again")
    found = [(i.seq, i.outcome, i.reason) for i in await bench.items()]
    assert found == [(0, "shed", "stale"), (1, "classify", ""), (2, "shed", "stale"), (3, "classify", "")]
    found = [(i.outcome, i.lane) for _, b in await late.batches(BATCHES_LATE) for i in b.items]
    assert found == [("classify", "late")] * 3


async def test_frames_of_a_replay_have_their_own_lane_and_batches() -> None:
    bench = PrepareBench.of(FULL)
    await bench.give(frame(0))
    await bench.give(frame(1), sightline_lane=b"replay-again")
    found = {r.headers[h.LANE]: [i.lane for i in b.items] for r, b in await bench.batches()}
    assert found == {b"live": ["live"], b"replay-again": ["replay-again"]}


def _other_version() -> bytes:
    fields = msgpack.unpackb(encode(frame(1)))
    return bytes(msgpack.packb({**fields, "v": (9, 0)}))


BEAT = Heartbeat(service="x", instance="y", at_ns=1)
BAD = {
    "garbage": (b"garbage", "truncated"),
    "cut record": (encode(frame(1))[:-40], "truncated"),
    "another version": (_other_version(), "unknownversion"),
    "another kind": (encode(BEAT), "wrongkind"),
    "no picture": (encode(frame(1, image=b"garbage")), "Undecodable"),
    "cut picture": (encode(frame(1, image=picture()[:-200])), "CutShort"),
    "another size": (encode(frame(1, width=WIDTH + 1)), "WrongSize"),
    "another frame": (encode(frame(99)), "HeaderMismatch"),
}


@pytest.mark.parametrize(("value", "error"), BAD.values(), ids=BAD.keys())
async def test_an_unreadable_record_becomes_a_dead_letter_and_later_records_are_processed(
    value: bytes, error: str
) -> None:
    bench = PrepareBench.of(FULL)
    await bench.give(frame(0))
    headers = h.frame_headers([FrameId("gate", 1, 1)], "live")
    await bench.give_bytes(value, headers)
    await bench.give(frame(2))
    assert [i.seq for i in await bench.items()] == [0, 2]
    (letter,) = await bench.letters()
    assert (letter.value, letter.key) == (value, b"gate")
    failure = h.read_failure(letter.headers)
    assert failure
    assert (failure.topic, failure.partition, failure.offset) == (FRAMES, PARTITION, 1)
    assert (failure.stage, failure.error) == ("prepare-live", error)
    assert failure.message
    assert h.frames_of(letter.headers) == (FrameId("gate", 1, 1),)
    assert h.PIPELINE not in letter.headers
    assert await bench.committed() == 3


async def test_a_frame_with_an_unreadable_picture_and_no_motion_becomes_a_dead_letter() -> None:
    bench = PrepareBench.of(MOTION)
    await bench.give(frame(0, motion=(), image=b"garbage"))
    assert await bench.items() == []
    assert len(await bench.letters()) == 1


@pytest.mark.parametrize("lane", [b"fast", b"replay-" + b"a" * 1_000_000])
async def test_a_frame_with_an_unknown_lane_becomes_a_dead_letter(lane: bytes) -> None:
    bench = PrepareBench.of(FULL)
    await bench.give(frame(0), sightline_lane=lane)
    assert await bench.items() == []
    (letter,) = await bench.letters()
    failure = h.read_failure(letter.headers)
    assert failure
    assert failure.error == "UnknownLane"


async def test_a_record_without_headers_is_identified_by_its_body() -> None:
    bench = PrepareBench.of(FULL)
    await bench.give_bytes(encode(frame(4)))
    await bench.give_bytes(encode(frame(5, image=b"garbage")))
    (item,) = await bench.items()
    assert (item.seq, item.lane) == (4, "live")
    assert len(item.traceparent) == len(h.new_traceparent())
    (letter,) = await bench.letters()
    assert h.frames_of(letter.headers) == (FrameId("gate", 1, 5),)


async def test_frames_of_an_unwritten_batch_are_read_again_after_a_kill() -> None:
    bench = PrepareBench.of(FULL)
    for seq in range(3):
        await bench.give(frame(seq))
    await bench.runner.run()  # three of four: the batch is still open
    assert await bench.committed() is None
    config = Config({FULL.key: FULL})
    bench.runner = MemoryRunner(PrepareStage("live", config, bench.clock), bench.log, bench.clock)
    assert [i.seq for i in await bench.items()] == [0, 1, 2]
    assert await bench.committed() == 3


def _zeros(seq: int) -> bytes:
    """Return a frame whose withheld counts name 60,000 reasons with a count of zero."""
    counts = {"still": 1, **{f"reason-{n:020}": 0 for n in range(60_000)}}
    account = {"camera": "gate", "epoch": 1, "first": seq - 1, "last": seq - 1, "counts": counts}
    return bytes(msgpack.packb({**msgpack.unpackb(encode(frame(seq))), "account": account}))


async def test_only_the_frame_that_is_too_large_for_any_batch_becomes_a_dead_letter() -> None:
    bench = PrepareBench.of(pipeline("full", max_items=64), pipeline("also", max_items=64))
    for seq in range(1, 25):
        await bench.give_bytes(
            encode(frame(seq)) if seq % 2 else _zeros(seq), h.frame_headers([frame(seq).id], "live")
        )
    found = {batch.pipeline: [i.seq for i in batch.items] for _, batch in await bench.batches()}
    assert found == {"full": list(range(1, 25, 2)), "also": list(range(1, 25, 2))}
    dead = [each for letter in await bench.letters() for each in h.frames_of(letter.headers)]
    assert dead == [FrameId("gate", 1, seq) for seq in range(2, 25, 2)]
    assert await bench.committed() == 24


async def test_a_traceparent_header_of_a_megabyte_is_replaced_by_a_new_one_of_normal_length() -> None:
    bench = PrepareBench.of(pipeline("full", max_items=64))
    for seq in range(20):
        await bench.give(frame(seq), traceparent=b"x" * 1_000_000)
    traces = [item.traceparent for item in await bench.items()]
    assert len(set(traces)) == 20
    assert {len(trace) for trace in traces} == {len(TRACE)}


async def test_a_frame_whose_regions_cannot_be_cropped_is_in_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(image: np.ndarray, window: CropWindow, colour: str, *, reduction: int) -> np.ndarray:
        if colour == "rgb" and image.mean() > 200:
            raise cv2.error("this frame fails")
        return real(image, window, colour, reduction=reduction)

    real = encoded_picture.draw
    monkeypatch.setattr(encoded_picture, "draw", draw)
    bench = PrepareBench.of(FULL, pipeline("also", max_items=4, width=8, height=8, colour="rgb"))
    for seq, level in enumerate([10, 230, 120]):
        await bench.give(frame(seq, image=picture(level)))
    found = {batch.pipeline: [i.seq for i in batch.items] for _, batch in await bench.batches()}
    assert found == {"full": [0, 2], "also": [0, 2]}
    (letter,) = await bench.letters()
    assert h.frames_of(letter.headers) == (FrameId("gate", 1, 1),)
    assert await bench.committed() == 3


@pytest.mark.parametrize("name", [h.FRAMES, h.LANE, h.ACCOUNT, h.TRACEPARENT, h.PIPELINE])
async def test_a_record_header_without_a_value_affects_at_most_one_record(name: str) -> None:
    bench = PrepareBench.of(FULL)
    for value in (encode(frame(0)), b"garbage"):
        await bench.give_bytes(value, {**h.frame_headers([frame(0).id], "live", TRACE), name: None})  # type: ignore[dict-item]
    await bench.give(frame(1))
    assert [item.seq for item in await bench.items()][-1] == 1
    assert {letter.value for letter in await bench.letters()} >= {b"garbage"}
    assert await bench.committed() == 3


async def test_the_log_entry_of_a_record_that_becomes_a_dead_letter_is_short() -> None:
    bench = PrepareBench.of(FULL)
    await bench.give_bytes(bytes(msgpack.packb({"kind": "x" * 1_000_000})))
    with capture_logs() as entries:
        await bench.runner.run()
    assert [entry["event"] for entry in entries] == ["record_parked"]
    assert len(str(entries)) < 1_000


async def test_each_noisy_camera_is_denoised_separately() -> None:
    rng = np.random.default_rng(2)
    bench = PrepareBench.of(
        pipeline("auto", denoise="auto", max_items=1, width=WIDTH, height=HEIGHT),
        pipeline("also", denoise="auto", max_items=1, width=WIDTH, height=HEIGHT),
    )
    plain = PrepareBench.of(pipeline("plain", max_items=1, width=WIDTH, height=HEIGHT))
    for camera in ("gate", "gate", "yard", "gate", "dock", "gate", "yard"):
        noise = np.clip(128 + rng.normal(0, 30, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8)
        data = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        await bench.give(frame(0, camera=camera, image=data))
        await plain.give(frame(0, camera=camera, image=data))
    found = await bench.batches()
    filtered = [model_input(b).std() for _, b in found if b.pipeline == "auto"]
    unfiltered = [model_input(b).std() for _, b in await plain.batches()]
    assert all(f < u * 0.8 for f, u in zip(filtered, unfiltered, strict=True))
    assert [b.pixels for _, b in found if b.pipeline == "also"] == [
        b.pixels for _, b in found if b.pipeline == "auto"
    ]


async def test_two_pipelines_with_equal_temporal_filters_and_different_time_budgets_share_one_filter_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def watched(self: TemporalDenoiser, image: np.ndarray) -> np.ndarray:
        calls.append(self)
        return real(self, image)

    calls: list[TemporalDenoiser] = []
    real = TemporalDenoiser.denoise
    monkeypatch.setattr(TemporalDenoiser, "denoise", watched)
    bench = PrepareBench.of(*(pipeline(f"p{ms}", denoise="temporal", denoise_budget_ms=ms) for ms in (10, 20)))
    await bench.give(frame(0))
    assert len(await bench.batches()) == 2
    assert len(calls) == 1


async def test_a_changed_pipeline_takes_effect_between_two_batches() -> None:
    bench = PrepareBench.of(FULL)
    stage = bench.runner._stage
    assert isinstance(stage, Configurable)

    async def prepare(first: int, *pipelines: PipelineConfig) -> None:
        stage.configure(Config({p.key: p for p in pipelines}))
        for seq in (first, first + 1):
            await bench.give(frame(seq))
        await bench.runner.run()

    await prepare(0, FULL)
    await prepare(2, FULL.model_copy(update={"width": 32, "colour": "rgb"}), MOTION)
    await prepare(4, MOTION)
    found = [
        (batch.pipeline, batch.preparation, [item.seq for item in batch.items]) for _, batch in await bench.batches()
    ]
    full = [(made.canvas.width, made.colour, seqs) for name, made, seqs in found if name == "full"]
    moving = [seq for name, _, seqs in found if name == "moving" for seq in seqs]
    assert full == [(16, "bgr", [0, 1]), (32, "rgb", [2, 3])]
    assert moving == [2, 3, 4, 5]
    assert await bench.committed() == 6


async def test_an_idle_processor_closes_its_open_batches() -> None:
    bench = PrepareBench.of(FULL)
    await bench.give(frame(0))
    await bench.runner.run()
    part = bench.runner._parts[bench.tp]
    (work,) = part.processor.idle()
    assert [item.seq for record in work.records for item in decode(Batch, record.value).items] == [0]
    assert part.processor.idle() == []
