"""Tests of the way from an event to a receipt, without Kafka."""

from __future__ import annotations

import asyncio
import hashlib
import json
from email.utils import formatdate
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.identity import LIVE
from ingest.contract.records import Alert, Box, Event, EventData, Evidence, Frame, FrameRef, Overlay
from ingest.contract.records.event import DEFAULT_GAP_S
from ingest.contract.topics import ALERTS, DEADLETTER, EVENTS, FRAMES
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from stream.alerts.alert import alert_id
from stream.alerts.pictures import annotated, decoded
from stream.alerts.stage import (
    MAX_WAITING,
    PICTURE_WAIT_S,
    RETRIES_AT_ONCE,
    RETRY_S,
    STORE_REQUEST_S,
    AlertStage,
)
from stream.delivery.clients.receiver import Inbox
from stream.delivery.schedule import JITTER_SHARE, MAX_RETRY_AFTER_S, AttemptResult, verdict_after
from stream.evidence.folder import FolderStore
from stream.evidence.store import EvidenceStore, MemoryStore
from stream.exceptions import StoreFailed

PAUSES = (0.0, 5.0, 300.0)
NOW_S = 1_800_000_000.0


def event(number: int = 0, *, frame: FrameRef | None = None, seq: int = 3) -> Event:
    return Event(
        id=f"event-{number}",
        source="/here/road",
        type="sightline.line.crossed",
        subject="road",
        time="2026-01-02T03:04:05.678Z",
        data=EventData(
            incident=f"incident-{number}",
            rule="line",
            camera="road" if frame else None,
            summary="car crossed line going forward",
            label="car",
            score=0.9,
            details={"direction": "forward"},
            epoch=7,
            seq=seq,
            captured_ns=5,
            frame=frame,
            overlay=Overlay(shape=((10, 80), (10, 0)), box=Box(20, 20, 60, 50), trail=((5, 30), (40, 35))),
        ),
    )


def jpeg() -> bytes:
    return cv2.imencode(".jpg", np.full((90, 160, 3), 90, np.uint8))[1].tobytes()


class TestSchedule:
    @given(status=st.one_of(st.none(), st.integers(100, 599)), attempt=st.integers(1, 5), chance=st.floats(0, 0.999))
    def test_every_response_of_a_receiver_makes_the_alert_delivered_retrying_or_dead(
        self, status: int | None, attempt: int, chance: float
    ) -> None:
        verdict = verdict_after(AttemptResult(status, "reason"), attempt, PAUSES, chance, NOW_S)
        if status is not None and 200 <= status < 300:
            assert verdict.state == "delivered"
        elif status == 410 or attempt >= len(PAUSES):
            assert verdict.state == "dead"
            assert verdict.reason
        else:
            assert verdict.state == "retrying"
            assert PAUSES[attempt] <= verdict.pause_s <= PAUSES[attempt] * (1 + JITTER_SHARE)

    @pytest.mark.parametrize(
        ("header", "pause_s"),
        [
            ("60", 60.0),
            (formatdate(NOW_S + 90, usegmt=True), 90.0),
            (formatdate(NOW_S - 90, usegmt=True), 5.0),
            ("soon", 5.0),
            ("²", 5.0),
            ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 5.0),
            ("", 5.0),
            ("99999999", MAX_RETRY_AFTER_S),
        ],
    )
    def test_the_header_retry_after_extends_the_pause_before_the_next_delivery(
        self, header: str, pause_s: float
    ) -> None:
        assert verdict_after(AttemptResult(429, retry_after=header), 1, PAUSES, 0.0, NOW_S).pause_s == pause_s


class FullStore(MemoryStore):
    """An evidence store whose disk is full while ``full`` is set."""

    full = True

    def put(self, name: str, data: bytes, media_type: str) -> Evidence:
        if self.full:
            raise StoreFailed("No space left on device")
        return super().put(name, data, media_type)


class TestStage:
    async def processor(self, log: MemoryLog, store: MemoryStore) -> object:
        return await AlertStage(store, 1).open(TopicPartition(EVENTS, 0), 0, log)

    async def put_frame(self, log: MemoryLog, seq: int = 3) -> FrameRef:
        frame = Frame(camera="road", epoch=7, seq=seq, captured_ns=5, width=160, height=90, image=jpeg())
        headers = h.frame_headers([frame.id], LIVE)
        place = await log.produce(Outgoing(FRAMES, 0, encode(frame), headers=headers))
        return FrameRef(FRAMES, *place)

    async def process(self, log: MemoryLog, store: EvidenceStore, value: bytes) -> Outgoing:
        processor = await AlertStage(store, 1).open(TopicPartition(EVENTS, 0), 0, log)
        record = LogRecord(EVENTS, 0, 9, None, value)
        (work,) = await asyncio.to_thread(processor.process, record)
        assert work.done == (9,)
        (again,) = await asyncio.to_thread(processor.process, record)
        assert not again.records or again.records[0].topic == DEADLETTER
        return work.records[-1]

    async def test_an_alert_has_the_original_picture_and_an_annotated_picture(self) -> None:
        log, store = MemoryLog(partitions=1), MemoryStore()
        out = await self.process(log, store, encode_json(event(frame=await self.put_frame(log))))
        assert out.topic == ALERTS
        alert = decode_json(Alert, out.value)
        assert [e.name for e in alert.data.evidence] == [
            "road/2026-01-02/030405.678Z-event-0-original.jpg",
            "road/2026-01-02/030405.678Z-event-0-annotated.jpg",
        ]
        assert alert.data.evidence_missing == ""
        for evidence in alert.data.evidence:
            with store.open(evidence.name) as stream:
                assert hashlib.sha256(stream.read()).hexdigest() == evidence.sha256
        with store.open(alert.data.evidence[0].name) as stream:
            assert stream.read() == jpeg()
        assert alert.id == alert_id(event())

    async def test_a_new_partition_owner_does_not_repeat_a_written_alert(self) -> None:
        log, store = MemoryLog(partitions=1), MemoryStore()
        value = encode_json(event(frame=await self.put_frame(log)))
        await log.produce(await self.process(log, store, value))
        processor = await AlertStage(store, 1).open(TopicPartition(EVENTS, 0), 0, log)
        (work,) = await asyncio.to_thread(processor.process, LogRecord(EVENTS, 0, 9, None, value))
        assert ALERTS not in [out.topic for out in work.records]

    async def test_an_alert_without_its_picture_states_why_the_picture_is_missing(self) -> None:
        log, store = MemoryLog(partitions=1), MemoryStore()
        other = await self.put_frame(log, seq=4)
        for frame, reason in ((other, "is not frame road/7/3"), (FrameRef(FRAMES, 7, 0), "no longer in the Kafka")):
            out = await self.process(log, store, encode_json(event(frame=frame)))
            alert = decode_json(Alert, out.value)
            assert (out.topic, alert.data.evidence) == (ALERTS, ())
            assert reason in alert.data.evidence_missing

    async def test_an_alert_whose_evidence_folder_is_a_link_out_of_the_store_states_why_it_has_no_picture(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store" / "road").symlink_to(tmp_path)
        log, store = MemoryLog(partitions=1), FolderStore(tmp_path / "store")
        out = await self.process(log, store, encode_json(event(frame=await self.put_frame(log))))
        alert = decode_json(Alert, out.value)
        assert (out.topic, alert.data.evidence) == (ALERTS, ())
        assert "expected a path inside the store" in alert.data.evidence_missing

    async def test_an_alert_of_a_sensor_has_no_evidence(self) -> None:
        out = await self.process(MemoryLog(partitions=1), MemoryStore(), encode_json(event()))
        data = decode_json(Alert, out.value).data
        assert (data.evidence, data.evidence_missing) == ((), "")

    async def test_an_alert_waits_a_limited_time_for_the_evidence_store_and_then_states_why_it_has_no_picture(
        self,
    ) -> None:
        log, store, clock = MemoryLog(partitions=1), FullStore(), ManualClock()
        processor = await AlertStage(store, 1, clock).open(TopicPartition(EVENTS, 0), 0, log)
        frame = await self.put_frame(log)
        for offset in range(2):
            value = encode_json(event(offset, frame=frame))
            assert await asyncio.to_thread(processor.process, LogRecord(EVENTS, 0, offset, None, value)) == ()
            clock.seconds += 1.0
        clock.seconds += PICTURE_WAIT_S - 2.0
        (work,) = await asyncio.to_thread(processor.tick)
        alert = decode_json(Alert, work.records[-1].value)
        assert (work.done, alert.data.evidence) == ((0,), ())
        assert alert.data.evidence_missing == "the evidence store failed: No space left on device"
        store.full = False
        clock.seconds += RETRY_S
        (work,) = await asyncio.to_thread(processor.tick)
        assert len(decode_json(Alert, work.records[-1].value).data.evidence) == 2

    async def test_an_event_that_waits_twice_for_the_evidence_store_makes_one_alert(self) -> None:
        log, clock = MemoryLog(partitions=1), ManualClock()
        processor = await AlertStage(FullStore(), 1, clock).open(TopicPartition(EVENTS, 0), 0, log)
        value = encode_json(event(frame=await self.put_frame(log)))
        for offset in range(2):
            assert await asyncio.to_thread(processor.process, LogRecord(EVENTS, 0, offset, None, value)) == ()
        clock.seconds += PICTURE_WAIT_S
        works = await asyncio.to_thread(processor.tick)
        assert [work.done for work in works] == [(0,), (1,)]
        assert [out.topic for work in works for out in work.records].count(ALERTS) == 1

    async def test_a_full_evidence_store_delays_only_alerts_with_pictures(self) -> None:
        log, store, clock = MemoryLog(partitions=1), FullStore(), ManualClock()
        processor = await AlertStage(store, 1, clock).open(TopicPartition(EVENTS, 0), 0, log)
        frame = await self.put_frame(log)
        done = []
        for offset, picture in enumerate((True, False, True, False)):
            value = encode_json(event(offset, frame=frame if picture else None))
            works = await asyncio.to_thread(processor.process, LogRecord(EVENTS, 0, offset, None, value))
            done += [work.done for work in works]
        assert done == [(1,), (3,)]
        clock.seconds += RETRY_S
        assert await asyncio.to_thread(processor.tick) == []
        assert processor.deadline == clock.monotonic() + RETRY_S
        assert processor.flush() == ()  # the next owner reads them again
        store.full = False
        works = await asyncio.to_thread(processor.tick)
        assert [(work.done, work.records[-1].topic) for work in works] == [((0,), ALERTS), ((2,), ALERTS)]
        assert processor.deadline == clock.monotonic() + DEFAULT_GAP_S  # the end of the incident

    async def test_evidence_pictures_of_waiting_events_are_stored_in_order_once_there_is_room(self) -> None:
        log, store, clock = MemoryLog(partitions=1), FullStore(), ManualClock()
        processor = await AlertStage(store, 1, clock).open(TopicPartition(EVENTS, 0), 0, log)
        frame = await self.put_frame(log)
        for n in range(MAX_WAITING + 1):
            record = LogRecord(EVENTS, 0, n, None, encode_json(event(n, frame=frame)))
            works = await asyncio.to_thread(processor.process, record)
        (oldest,) = works
        assert (oldest.records[-1].topic, oldest.done) == (ALERTS, (0,))
        assert decode_json(Alert, oldest.records[-1].value).data.evidence_missing
        store.full = False
        late = LogRecord(EVENTS, 0, n + 1, None, encode_json(event(n + 1, frame=frame)))
        assert await asyncio.to_thread(processor.process, late) != ()  # the oldest waiting event gets its alert
        clock.seconds += RETRY_S
        works = await asyncio.to_thread(processor.tick)
        assert [work.done for work in works] == [(offset,) for offset in range(2, 2 + RETRIES_AT_ONCE)]
        assert processor.deadline is not None
        assert processor.deadline <= clock.monotonic()

    async def test_an_alerts_worker_stores_only_a_few_waiting_pictures_in_one_pass_if_the_evidence_store_is_slow(
        self,
    ) -> None:
        class SlowStore(FullStore):
            def put(self, name: str, data: bytes, media_type: str) -> Evidence:
                clock.seconds += STORE_REQUEST_S / 4
                return super().put(name, data, media_type)

        log, store, clock = MemoryLog(partitions=1), SlowStore(), ManualClock()
        processor = await AlertStage(store, 1, clock).open(TopicPartition(EVENTS, 0), 0, log)
        frame = await self.put_frame(log)
        for n in range(4):
            record = LogRecord(EVENTS, 0, n, None, encode_json(event(n, frame=frame)))
            assert await asyncio.to_thread(processor.process, record) == ()
        store.full = False
        done = [[work.done for work in await asyncio.to_thread(processor.tick)] for _ in range(2)]
        assert done == [[(0,), (1,)], [(2,), (3,)]]

    async def test_an_unreadable_event_becomes_a_dead_letter(self) -> None:
        out = await self.process(MemoryLog(partitions=1), MemoryStore(), b"{")
        assert (out.topic, out.value) == (DEADLETTER, b"{")


def test_an_annotated_evidence_picture_has_a_caption_and_drawn_shapes() -> None:
    drawn = cv2.imdecode(np.frombuffer(annotated(decoded(jpeg(), event()), event()), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape[0] > 90
    assert (np.abs(drawn[:90].astype(int) - 90).max(axis=2) > 60).sum() > 100


def test_the_webhook_receiver_recognises_repeated_alerts_after_a_restart(tmp_path: Path) -> None:
    out, shown = tmp_path / "received.jsonl", []
    assert Inbox(out, shown.append).take("msg_1", {"a": 1})
    assert not Inbox(out, shown.append).take("msg_1", {"a": 1})
    assert [json.loads(line)["first"] for line in out.read_text().splitlines()] == [True, False]
