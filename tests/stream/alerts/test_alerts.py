"""Tests of the way from an event to a receipt, without Kafka."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.identity import LIVE
from ingest.contract.records import Alert, Box, Delivery, Event, EventData, Frame, FrameRef, Overlay
from ingest.contract.topics import ALERTS, DEADLETTER, EVENTS, FRAMES
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.site import ReceiverConfig
from stream.alerts.alert import alert_id, make_alert
from stream.alerts.evidence import MemoryStore
from stream.alerts.pending import PendingDeliveries
from stream.alerts.pictures import annotated
from stream.alerts.receiver import Inbox, make_app
from stream.alerts.schedule import JITTER_SHARE, MAX_RETRY_AFTER_S, AttemptResult, verdict_after
from stream.alerts.stage import AlertStage
from stream.alerts.webhook import MAX_BODY_BYTES, WebhookDeliverer, signed_headers

SECRETS = ("whsec_" + "a" * 32, "whsec_" + "b" * 32)
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
    def test_every_result_leads_to_one_state(self, status: int | None, attempt: int, chance: float) -> None:
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
    def test_retry_after_extends_the_pause(self, header: str, pause_s: float) -> None:
        assert verdict_after(AttemptResult(429, retry_after=header), 1, PAUSES, 0.0, NOW_S).pause_s == pause_s


class TestPending:
    def receipt(self, state: str, attempt: int, next_ns: int | None = None) -> Delivery:
        return Delivery(
            alert=alert_id(event()),
            incident="i",
            receiver="r",
            state=state,  # type: ignore[arg-type]
            attempt=attempt,
            attempted_ns=1,
            next_attempt_ns=next_ns,
        )

    def test_a_new_alert_is_due_at_once_and_only_once(self) -> None:
        pending, alert = PendingDeliveries("r"), make_alert(event(), ())
        pending.alert(alert, 0, 0.0, NOW_S)
        pending.alert(alert, 0, 0.0, NOW_S)
        task = pending.due(NOW_S)
        assert task is not None
        assert (task.attempt, task.alert) == (1, alert)
        assert pending.due(NOW_S) is None

    def test_a_restart_continues_after_the_last_receipt(self) -> None:
        pending = PendingDeliveries("r")
        pending.receipt(self.receipt("retrying", 2, round((NOW_S + 60) * 1e9)))
        pending.receipt(self.receipt("retrying", 1, round(NOW_S * 1e9)))
        pending.alert(make_alert(event(), ()), 0, 0.0, NOW_S)
        assert pending.due(NOW_S + 59) is None
        task = pending.due(NOW_S + 61)
        assert task is not None
        assert task.attempt == 3

    @pytest.mark.parametrize("state", ["delivered", "dead"])
    def test_an_alert_with_a_final_receipt_is_not_due(self, state: str) -> None:
        pending = PendingDeliveries("r")
        pending.receipt(self.receipt(state, 4))
        pending.alert(make_alert(event(), ()), 0, 0.0, NOW_S)
        assert len(pending) == 0

    @pytest.mark.parametrize(
        ("final", "later"), [("delivered", "retrying"), ("delivered", "dead"), ("dead", "retrying")]
    )
    def test_a_later_receipt_does_not_replace_a_final_one(self, final: str, later: str) -> None:
        pending = PendingDeliveries("r")
        pending.receipt(self.receipt(final, 1))
        pending.receipt(self.receipt(later, 2, round(NOW_S * 1e9)))
        pending.alert(make_alert(event(), ()), 0, 0.0, NOW_S)
        assert len(pending) == 0

    def test_a_delivered_receipt_wins_over_a_dead_one(self) -> None:
        pending = PendingDeliveries("r")
        for state, attempt in (("dead", 3), ("delivered", 2), ("dead", 3)):
            pending.receipt(self.receipt(state, attempt))
        assert pending._receipts[alert_id(event())].state == "delivered"

    def test_a_reassigned_partition_has_one_chain_of_attempts(self) -> None:
        pending, alert = PendingDeliveries("r"), make_alert(event(), ())
        pending.alert(alert, 0, 0.0, NOW_S)
        under_way = pending.due(NOW_S)
        assert under_way is not None
        pending.drop(0)
        pending.alert(alert, 0, 0.0, NOW_S)
        pending.again(under_way, NOW_S)
        assert [task.attempt for task in (pending.due(NOW_S + 1), pending.due(NOW_S + 1)) if task] == [1]

    def test_a_revoked_partition_loses_its_tasks(self) -> None:
        pending = PendingDeliveries("r")
        pending.alert(make_alert(event(0), ()), 0, 0.0, NOW_S)
        pending.alert(make_alert(event(1), ()), 1, 0.0, NOW_S)
        under_way = pending.due(NOW_S)
        assert under_way is not None
        pending.drop(0)
        pending.again(under_way, NOW_S)
        left = pending.due(NOW_S)
        assert left is not None
        assert left.alert.data.incident == "incident-1"
        assert pending.due(NOW_S) is None


class TestStage:
    async def processor(self, log: MemoryLog, store: MemoryStore) -> object:
        return await AlertStage(store, 1).open(TopicPartition(EVENTS, 0), 0, log)

    async def put_frame(self, log: MemoryLog, seq: int = 3) -> FrameRef:
        frame = Frame(camera="road", epoch=7, seq=seq, captured_ns=5, width=160, height=90, image=jpeg())
        headers = h.frame_headers([frame.id], LIVE)
        place = await log.produce(Outgoing(FRAMES, 0, encode(frame), headers=headers))
        return FrameRef(FRAMES, *place)

    async def process(self, log: MemoryLog, store: MemoryStore, value: bytes) -> Outgoing:
        processor = await AlertStage(store, 1).open(TopicPartition(EVENTS, 0), 0, log)
        record = LogRecord(EVENTS, 0, 9, None, value)
        (work,) = await asyncio.to_thread(processor.process, record)
        assert work.done == (9,)
        (again,) = await asyncio.to_thread(processor.process, record)
        assert not again.records or again.records[0].topic == DEADLETTER
        (out,) = work.records
        return out

    async def test_an_alert_has_the_original_picture_and_an_annotated_one(self) -> None:
        log, store = MemoryLog(partitions=1), MemoryStore()
        out = await self.process(log, store, encode_json(event(frame=await self.put_frame(log))))
        assert out.topic == ALERTS
        alert = decode_json(Alert, out.value)
        assert [e.name for e in alert.data.evidence] == [
            "road/2026-01-02/event-0-original.jpg",
            "road/2026-01-02/event-0-annotated.jpg",
        ]
        assert store.read(alert.data.evidence[0].name) == jpeg()
        assert alert.id == alert_id(event())

    async def test_a_new_owner_does_not_repeat_a_written_alert(self) -> None:
        log, store = MemoryLog(partitions=1), MemoryStore()
        value = encode_json(event(frame=await self.put_frame(log)))
        await log.produce(await self.process(log, store, value))
        processor = await AlertStage(store, 1).open(TopicPartition(EVENTS, 0), 0, log)
        (work,) = await asyncio.to_thread(processor.process, LogRecord(EVENTS, 0, 9, None, value))
        assert work.records == ()

    async def test_an_event_without_its_picture_becomes_a_dead_letter(self) -> None:
        log, store = MemoryLog(partitions=1), MemoryStore()
        other = await self.put_frame(log, seq=4)
        for frame in (other, FrameRef(FRAMES, 7, 0)):
            out = await self.process(log, store, encode_json(event(frame=frame)))
            assert out.topic == DEADLETTER
            failure = h.read_failure(out.headers)
            assert failure is not None
            assert failure.error == "evidencemissing"

    async def test_an_alert_of_a_sensor_has_no_evidence(self) -> None:
        out = await self.process(MemoryLog(partitions=1), MemoryStore(), encode_json(event()))
        assert decode_json(Alert, out.value).data.evidence == ()

    async def test_an_unreadable_event_is_parked(self) -> None:
        out = await self.process(MemoryLog(partitions=1), MemoryStore(), b"{")
        assert (out.topic, out.value) == (DEADLETTER, b"{")


def test_the_annotated_picture_has_a_caption_and_drawn_shapes() -> None:
    drawn = cv2.imdecode(np.frombuffer(annotated(jpeg(), event()), np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape[0] > 90
    assert (np.abs(drawn[:90].astype(int) - 90).max(axis=2) > 60).sum() > 100


@pytest.fixture
def receiver(tmp_path: Path) -> ReceiverConfig:
    (tmp_path / "secret").write_text(f"{SECRETS[0]}\n")
    return ReceiverConfig(name="r", url="http://receiver/", secret_file=tmp_path / "secret", timeout_s=5)


class TestWebhook:
    async def post(self, receiver: ReceiverConfig, secret: str, seen: list[dict[str, object]]) -> AttemptResult:
        app = make_app(secret, Inbox(None, seen.append))
        deliverer = WebhookDeliverer(receiver, httpx.ASGITransport(app))
        try:
            return await deliverer.deliver(make_alert(event(), ()), time.time())
        finally:
            await deliverer.close()

    async def test_a_signed_alert_passes_verification(self, receiver: ReceiverConfig) -> None:
        seen: list[dict[str, object]] = []
        assert await self.post(receiver, SECRETS[0], seen) == AttemptResult(204)
        assert [entry["id"] for entry in seen] == [alert_id(event())]

    async def test_an_alert_signed_with_another_secret_is_refused(self, receiver: ReceiverConfig) -> None:
        seen: list[dict[str, object]] = []
        assert (await self.post(receiver, SECRETS[1], seen)).status == 401
        assert seen == []

    async def test_during_a_rotation_both_secrets_verify(self, receiver: ReceiverConfig) -> None:
        receiver.secret_file.write_text("\n".join(SECRETS))
        for secret in SECRETS:
            assert (await self.post(receiver, secret, [])).status == 204

    async def test_a_missing_secret_is_a_failed_result(self, receiver: ReceiverConfig) -> None:
        receiver.secret_file.unlink()
        result = await self.post(receiver, SECRETS[0], [])
        assert result.status is None
        assert "secret_file" in result.reason

    @pytest.mark.parametrize("secret", [b"hello", b"whsec_", "whsec_ü".encode(), b"\xff\xfe"])
    async def test_an_invalid_secret_is_a_failed_result(self, receiver: ReceiverConfig, secret: bytes) -> None:
        receiver.secret_file.write_bytes(secret)
        result = await self.post(receiver, SECRETS[0], [])
        assert result.status is None
        assert "secret_file" in result.reason

    async def test_an_endless_response_body_is_not_read_to_its_end(self, receiver: ReceiverConfig) -> None:
        sent = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 1024
                yield b"x" * 1024

        transport = httpx.MockTransport(lambda request: httpx.Response(200, content=endless()))
        deliverer = WebhookDeliverer(receiver, transport)
        assert (await deliverer.deliver(make_alert(event(), ()), time.time())).status == 200
        assert sent <= 2 * MAX_BODY_BYTES
        await deliverer.close()

    async def test_a_slow_response_body_times_out(self, receiver: ReceiverConfig) -> None:
        async def dripping() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

        quick = receiver.model_copy(update={"timeout_s": 0.1})
        transport = httpx.MockTransport(lambda request: httpx.Response(200, content=dripping()))
        deliverer = WebhookDeliverer(quick, transport)
        result = await deliverer.deliver(make_alert(event(), ()), time.time())
        assert result.status is None
        assert "0.1 s" in result.reason
        await deliverer.close()

    async def test_an_old_message_is_refused(self, receiver: ReceiverConfig) -> None:
        body = encode_json(make_alert(event(), ()))
        headers = signed_headers("msg_1", body, 1_000_000_000.0, receiver)
        transport = httpx.ASGITransport(make_app(SECRETS[0], Inbox(None, lambda _: None)))
        async with httpx.AsyncClient(transport=transport, base_url="http://receiver") as client:
            assert (await client.post("/", content=body, headers=headers)).status_code == 401


def test_the_inbox_recognises_repeated_alerts_after_a_restart(tmp_path: Path) -> None:
    out, shown = tmp_path / "received.jsonl", []
    assert Inbox(out, shown.append).take("msg_1", {"a": 1})
    assert not Inbox(out, shown.append).take("msg_1", {"a": 1})
    assert [json.loads(line)["first"] for line in out.read_text().splitlines()] == [True, False]
