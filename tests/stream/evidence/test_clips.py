"""Tests of clips: from an alert and the frames in the log to an MP4 and its record, without Kafka."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tracemalloc
from collections.abc import Iterator

import av
import numpy as np
import pytest
from structlog.testing import capture_logs

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode
from ingest.contract.identity import LIVE
from ingest.contract.records import (
    Alert,
    Box,
    Clip,
    Detection,
    Evidence,
    EvidenceRecord,
    Frame,
    FrameRef,
    Result,
    WithheldInterval,
)
from ingest.contract.topics import ALERTS, FRAMES, RESULTS
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import SystemClock
from stream.alerts.alert import make_alert
from stream.evidence import stage
from stream.evidence.clip.encoder import MAX_SIDE, ClipEncoder
from stream.evidence.clip.maker import make_clips
from stream.evidence.clip.window import NOT_IN_LOG, SETTLE_S, ClipWindow
from stream.evidence.stage import PAUSE_S, RETRY_S, _DueAlert
from stream.evidence.store import MemoryStore
from tests.stream.alerts.test_alerts import FullStore, event
from tests.stream.evidence.scene import SECOND, SIZE, Scene, decoded, frame, jpeg


async def filmed_for_a_full_store() -> tuple[Scene, FullStore]:
    """Return a scene of 100 frames, and its evidence store, which refuses files."""
    store = FullStore()
    scene = Scene(store=store)
    await scene.film(range(100))
    return scene, store


async def test_a_clip_has_the_frames_around_the_event_with_their_capture_times() -> None:
    scene = Scene()
    await scene.film(range(51))
    record = await scene.alert()
    await scene.film(range(51, 100))
    scene.clock.seconds = 10.2
    found, _ = await scene.made(record)
    (clip,) = found.files
    data = scene.contents(clip.name)
    assert clip.name == "road/2026-01-02/030405.678Z-event-0-clip.mp4"
    assert (clip.sha256, clip.size) == (hashlib.sha256(data).hexdigest(), len(data))
    assert (found.state, found.event, found.incident) == ("stored", "event-0", "incident-0")
    assert np.allclose(decoded(data), [(200 * n, 80 + 2 * n) for n in range(26)], atol=3)
    assert data.index(b"moov") < data.index(b"mdat")  # a browser plays it while it loads
    assert found.clip is not None
    assert (found.clip.frames, found.clip.gaps) == (26, ())
    assert (found.clip.first_ns, found.clip.last_ns) == (scene.captured_ns(40), scene.captured_ns(65))


async def test_the_evidence_of_an_alert_is_due_when_its_clip_ends_or_immediately_if_the_clip_has_ended() -> None:
    scene = Scene()
    await scene.film(range(51))
    processor = await scene.open()
    record = await scene.alert()
    assert await asyncio.to_thread(processor.process, record) == ()
    assert processor.deadline == pytest.approx(scene.clock.monotonic() + 3.0 + SETTLE_S)
    scene.clock.seconds += 3600.0
    late = await scene.open()
    assert await asyncio.to_thread(late.process, record) == ()
    assert late.deadline == scene.clock.monotonic()


async def test_a_new_partition_owner_makes_the_same_clip_and_writes_no_second_evidence_record() -> None:
    scene = Scene()
    await scene.film(range(100))
    record = await scene.alert()
    first, _ = await scene.made(record)  # ends before its record is written
    second, out = await scene.made(record)
    assert first.files == second.files
    await scene.log.produce(out)
    (work,) = await asyncio.to_thread((await scene.open()).process, record)
    assert (work.records, work.done) == ((), (record.offset,))


async def test_the_record_of_a_clip_names_its_gaps() -> None:
    scene = Scene()
    await scene.film(range(44))
    withheld = WithheldInterval(camera="road", epoch=7, first=44, last=54, counts={"still": 9, "rate": 2})
    await scene.film([55], account=withheld)
    record = await scene.alert(seq=43)
    await scene.film([56])
    found, _ = await scene.made(record)
    assert found.clip is not None
    gaps = [(gap.from_ns, gap.to_ns, gap.reason) for gap in found.clip.gaps]
    end_ns = scene.captured_ns(43) + 3 * SECOND
    assert gaps == [(scene.captured_ns(43), scene.captured_ns(55), "withheld by the agent: 2 rate, 9 still")]
    assert (found.clip.frames, found.clip.to_ns) == (13, end_ns)


async def test_the_evidence_record_says_that_frames_of_a_clip_have_expired_or_are_not_in_the_log() -> None:
    scene = Scene()
    await scene.film(range(53))
    record = await scene.alert()
    scene.log.forget(TopicPartition(FRAMES, 0), scene.refs[50].offset)
    found, _ = await scene.made(record)
    assert found.clip is not None
    assert found.clip.frames == 3
    assert [gap.reason for gap in found.clip.gaps] == ["the log has deleted the frames", NOT_IN_LOG]
    scene.log.forget(TopicPartition(FRAMES, 0), scene.refs[52].offset + 2)
    found, _ = await scene.made(record)
    assert found.files == ()
    assert found.clip is not None
    assert found.clip.missing == "the log has no frame of the interval"


async def test_unreadable_and_repeated_frames_are_left_out_of_a_clip() -> None:
    scene = Scene()
    await scene.film(range(52))
    again = frame(45, scene.captured_ns(45))
    await scene.log.produce(Outgoing(FRAMES, 0, encode(again), b"road", h.frame_headers([again.id], "replay-x")))
    await scene.log.produce(Outgoing(FRAMES, 0, b"no record", b"road"))
    await scene.film([52], image=b"no picture")
    await scene.film(range(53, 100))
    found, _ = await scene.made(await scene.alert())
    assert found.clip is not None
    assert (found.clip.frames, found.clip.unreadable) == (26, 1)
    assert [at_ms for at_ms, _ in decoded(scene.contents(found.files[0].name))] == [
        200 * n for n in range(26) if n != 12
    ]


async def test_a_clip_with_boxes_has_the_objects_of_each_frame_drawn() -> None:
    scene = Scene()
    await scene.film(range(100))
    seen = Detection(box=Box(40, 30, 120, 80), label="car", class_id=0, score=0.9)
    meta = {"camera": "road", "epoch": 7, "width": SIZE[0], "height": SIZE[1], "lane": LIVE, "pipelines": ("p",)}
    for seq in (45, 46):
        result = Result(
            **meta,
            seq=seq,
            captured_ns=scene.captured_ns(seq),
            source=scene.refs[seq],
            pipeline="p",
            finished_ns=1,
            outcome="classified",
            detections=(seen,),
        )
        await scene.log.produce(Outgoing(RESULTS, 0, encode(result), key=b"road"))
    found, _ = await scene.made(await scene.alert(boxes=True))
    plain, drawn = (decoded(scene.contents(one.name)) for one in found.files)
    assert [one.name.rsplit("Z-", 1)[1] for one in found.files] == ["event-0-clip.mp4", "event-0-clip-boxes.mp4"]
    changed = [n for n, (one, other) in enumerate(zip(plain, drawn, strict=True)) if abs(one[1] - other[1]) > 2]
    assert changed == [5, 6]


async def test_a_picture_that_the_alert_lacks_is_stored_later() -> None:
    scene = Scene()
    await scene.film(range(100))
    found, _ = await scene.made(await scene.alert(missing="the evidence store failed"))
    assert [one.name.rsplit("-", 1)[1] for one in found.files] == ["original.jpg", "annotated.jpg", "clip.mp4"]
    assert found.missing == ""
    assert scene.contents(found.files[0].name) == jpeg(100)


async def test_an_alert_is_tried_again_until_the_evidence_store_accepts_its_clip() -> None:
    scene, store = await filmed_for_a_full_store()
    record = await scene.alert()
    processor = await scene.open()
    await asyncio.to_thread(processor.process, record)
    scene.clock.seconds += 60.0
    assert await asyncio.to_thread(processor.tick) == ()
    assert processor.deadline == scene.clock.monotonic() + RETRY_S
    store.full = False
    (work,) = await asyncio.to_thread(processor.tick)
    assert work.done == (record.offset,)


async def test_a_failure_of_the_evidence_store_pauses_all_alerts_until_the_next_alert_can_be_stored() -> None:
    scene, store = await filmed_for_a_full_store()
    alerts = [await scene.alert(seq=50 + number) for number in range(3)]
    processor = await scene.open()
    for record in alerts:
        await asyncio.to_thread(processor.process, record)
    scene.clock.seconds += 60.0
    with capture_logs() as said:
        assert await asyncio.to_thread(processor.tick) == ()
        assert processor.deadline == scene.clock.monotonic() + PAUSE_S
        store.full = False
        scene.clock.seconds += PAUSE_S
        works = [*await asyncio.to_thread(processor.tick), *await asyncio.to_thread(processor.tick)]
        assert processor.deadline == scene.clock.monotonic() + RETRY_S - PAUSE_S
    assert [work.done for work in works] == [(record.offset,) for record in alerts[1:]]
    assert [one["event"] for one in said] == ["evidence_not_stored", "evidence_stored_again"]


async def test_alerts_whose_files_the_store_refuses_do_not_hold_up_other_alerts() -> None:
    scene, store = await filmed_for_a_full_store()
    refused = [await scene.alert(seq=50 + number) for number in range(3)]
    processor = await scene.open()
    for record in refused:
        await asyncio.to_thread(processor.process, record)
        scene.clock.seconds += 60.0
        assert await asyncio.to_thread(processor.tick) == ()
    scene.clock.seconds += RETRY_S + PAUSE_S
    store.full = False
    other = await scene.alert(seq=60)
    scene.clock.seconds += 60.0
    await asyncio.to_thread(processor.process, other)
    works = [work for _ in range(4) for work in await asyncio.to_thread(processor.tick)]
    assert [work.done[0] for work in works] == [other.offset, *(record.offset for record in refused)]
    assert processor.deadline is None


async def test_the_alert_that_is_due_first_gets_a_record_without_a_clip_if_too_many_alerts_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stage, "MAX_WAITING", 1)
    scene = Scene()
    await scene.film(range(40, 67))
    first, second = await scene.alert(seq=50), await scene.alert(seq=60)
    processor = await scene.open()
    assert await asyncio.to_thread(processor.process, first) == ()
    (work,) = await asyncio.to_thread(processor.process, second)
    assert work.done == (first.offset,)
    found = decode_json(EvidenceRecord, work.records[0].value)
    assert found.clip is not None
    assert found.clip.missing == "too many alerts wait for their clips"


@pytest.mark.parametrize("at_ns", [0, 2**63 - 1])
async def test_an_alert_from_a_clock_that_is_far_off_gets_an_evidence_record_without_a_clip(at_ns: int) -> None:
    scene = Scene()
    await scene.film(range(51))
    record = await scene.alert()
    alert = decode_json(Alert, record.value)
    data = alert.data.model_copy(update={"captured_ns": at_ns})
    found, _ = await scene.made(await scene.write(alert.model_copy(update={"data": data})))
    assert found.clip is not None
    assert found.clip.missing


async def test_an_unexpected_error_of_a_picture_is_noted_in_the_evidence_record_and_ends_no_worker() -> None:
    class OddStore(MemoryStore):
        def put(self, name: str, data: bytes, media_type: str) -> Evidence:
            if name.endswith("annotated.jpg"):
                raise ValueError("this picture cannot be drawn")
            return super().put(name, data, media_type)

    scene = Scene(store=OddStore())
    await scene.film(range(100))
    found, _ = await scene.made(await scene.alert(missing="the evidence store failed"))
    assert found.missing == "the evidence store failed"
    assert found.clip is not None
    assert "this picture cannot be drawn" in found.clip.missing


async def test_alerts_without_evidence_get_no_evidence_record() -> None:
    scene = Scene()
    record = await scene.write(make_alert(event(), ()))
    (work,) = await asyncio.to_thread((await scene.open()).process, record)
    assert (work.records, work.done) == ((), (record.offset,))
    unreadable = LogRecord(ALERTS, 0, 4, None, b"{")
    (work,) = await asyncio.to_thread((await scene.open()).process, unreadable)
    assert (work.records, work.done) == ((), (4,))


def window(seconds: float) -> ClipWindow:
    return ClipWindow(0, round(seconds * SECOND))


def test_a_clip_keeps_the_size_of_its_first_picture_in_even_pixels() -> None:
    sizes = [(641, 361), (320, 180), (2 * MAX_SIDE, MAX_SIDE // 2)]
    frames = [
        frame(n, n * SECOND, image=jpeg(50, size), width=size[0], height=size[1]) for n, size in enumerate(sizes, 1)
    ]
    for first, expected in ((frames, (640, 360)), (frames[2:], (MAX_SIDE, MAX_SIDE // 4))):
        made = make_clips(first, window(9.0))
        with av.open(io.BytesIO(made.clips["clip"])) as container:
            context = container.streams.video[0].codec_context
            assert (context.width, context.height) == expected
            assert len([*container.decode(video=0)]) == len(first)


def test_finishing_a_clip_without_pictures_is_an_error() -> None:
    with pytest.raises(ValueError, match="add a picture first"):
        ClipEncoder().finish()


def test_a_clip_keeps_one_frame_in_memory_at_a_time() -> None:
    picture = jpeg(50)
    comment = b"\xff\xfe" + (60_000).to_bytes(2, "big") + bytes(59_998)
    image = picture[:2] + comment * 5 + picture[2:]  # 300 kB each, 30 MB together

    def frames() -> Iterator[Frame]:
        for n in range(1, 101):
            yield frame(n, n * SECOND // 10, image=bytes(bytearray(image)))

    tracemalloc.start()
    try:
        made = make_clips(frames(), window(60.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.facts.frames == 100
    assert peak < 5_000_000


def test_the_description_of_a_clip_without_frames_states_why_the_clip_is_missing() -> None:
    made = make_clips([], window(1.0))
    assert made.clips == {}
    assert made.facts == Clip(from_ns=0, to_ns=SECOND, missing="the log has no frame of the interval")


@pytest.mark.kafka
async def test_a_clip_is_made_from_frames_on_kafka(kafka: str, prefix: str) -> None:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, partitions=1)
    async with KafkaLog(settings, "test-clips") as log:
        scene = Scene(clock=SystemClock())
        scene.log = log
        start_ns = scene.clock.now_ns()
        for seq in range(11):
            own = frame(seq, start_ns + seq * SECOND // 5)
            headers = h.frame_headers([own.id], LIVE)
            position = await log.produce(Outgoing(FRAMES, 0, encode(own), b"road", headers))
            scene.refs[seq] = FrameRef(FRAMES, *position)
        scene.start_ns = start_ns
        record = await scene.alert(seq=5)
        processor = await scene.open()
        due = _DueAlert(0.0, record.offset, record, decode_json(Alert, record.value))
        processor._waiting.append(due)
        (work,) = await asyncio.to_thread(processor.tick)
    found = decode_json(EvidenceRecord, work.records[0].value)
    assert found.clip is not None
    assert (found.clip.frames, found.clip.unreadable) == (11, 0)
    assert [at_ms for at_ms, _ in decoded(scene.contents(found.files[0].name))] == [200 * n for n in range(11)]
