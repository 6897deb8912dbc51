"""Tests of hostile events: each becomes a dead letter or an alert without a picture, and none ends the process."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import cv2
import numpy as np
import pytest

from ingest.contract import headers as h
from ingest.contract.codec import MAX_JSON_BYTES, decode_json, encode
from ingest.contract.identity import LIVE
from ingest.contract.records import Alert, Frame
from ingest.contract.topics import ALERTS, DEADLETTER, EVENTS, FRAMES
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from stream.alerts.incidents import ID
from stream.alerts.stage import AlertStage
from stream.evidence.store import MemoryStore

DATA = {
    "incident": "incident",
    "rule": "line",
    "camera": "road",
    "summary": "car crossed line",
    "epoch": 7,
    "seq": 3,
    "frame": [FRAMES, 0, 0],
    "overlay": {"shape": [[10, 80], [10, 0]], "box": [20, 20, 60, 50], "trail": [[5, 30], [40, 35]]},
}
EVENT = {
    "id": "event",
    "source": "/here/road",
    "type": "sightline.line.crossed",
    "subject": "road",
    "time": "2026-01-02T03:04:05.678Z",
    "data": DATA,
}


def event(**changed: Any) -> bytes:
    """Return an event with some fields of its envelope or of its data changed."""
    data = {**DATA, **{key: value for key, value in changed.items() if key in DATA}}
    envelope = {key: value for key, value in changed.items() if key not in DATA}
    return json.dumps({**EVENT, **envelope, "data": data}).encode()


def frame(image: bytes | None = None, width: int = 160) -> Outgoing:
    picture = cv2.imencode(".jpg", np.full((90, 160, 3), 90, np.uint8))[1].tobytes()
    sent = Frame(camera="road", epoch=7, seq=3, captured_ns=5, width=width, height=90, image=image or picture)
    return Outgoing(FRAMES, 0, encode(sent), headers=h.frame_headers([sent.id], LIVE))


async def outcome(value: bytes, sent: Outgoing | None = None, log: MemoryLog | None = None) -> Outgoing:
    log = log or MemoryLog(partitions=1)
    await log.produce(sent or frame())
    processor = await AlertStage(MemoryStore(), 1).open(TopicPartition(EVENTS, 0), 0, log)
    (work,) = await asyncio.to_thread(processor.process, LogRecord(EVENTS, 0, 9, None, value))
    assert work.done == (9,)
    return work.records[-1]


async def test_the_test_event_without_a_hostile_field_becomes_an_alert() -> None:
    assert (await outcome(event())).topic == ALERTS


@pytest.mark.parametrize(
    "changed",
    [
        {"frame": ["unheard-of", 0, 0]},
        {"frame": [FRAMES, -1, 0]},
        {"frame": [FRAMES, 0, -1]},
        {"frame": [FRAMES, 10**12, 0]},
        {"subject": "../.."},
        {"subject": "road/../../.."},
        {"id": "événement"},
        {"id": "a" * 300},
        {"id": "../../etc/passwd"},
        {"id": "two\r\nlines"},
        {"incident": "événement"},
        {"time": "../../../.."},
        {"time": "2026-01-02T03:04:05Z\n"},
        {"overlay": {"trail": [[float("nan"), 0], [1, 1]]}},
        {"overlay": {"shape": [[float("inf"), 0], [1, 1]]}},
        {"overlay": {"box": [0, 0, 1e12, 1e12]}},
        {"overlay": {"trail": [[0, 0]] * 20_000}},
        {"seq": 2**70},
        {"summary": "x" * 5000},
    ],
    ids=lambda changed: str(changed)[:50],
)
async def test_an_event_with_a_hostile_field_becomes_a_dead_letter_with_the_original_bytes(
    changed: dict[str, Any],
) -> None:
    value = event(**changed)
    out = await outcome(value)
    assert (out.topic, out.value) == (DEADLETTER, value)
    failure = h.read_failure(out.headers)
    assert failure is not None
    assert failure.error == "wrongtype"
    assert failure.message


async def test_an_event_that_is_too_large_becomes_a_dead_letter() -> None:
    assert (await outcome(event(padding="x" * MAX_JSON_BYTES))).topic == DEADLETTER


def huge_jpeg() -> bytes:
    """Return a small JPEG whose header declares 60,000 × 60,000 pixels, 11 GB when decoded."""
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((90, 160, 3), np.uint8))[1].tobytes())
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = (60_000).to_bytes(2, "big") * 2
    return bytes(jpeg)


@pytest.mark.parametrize("image", [huge_jpeg(), b"no picture"])
async def test_an_invalid_or_too_large_evidence_picture_is_never_decoded(image: bytes) -> None:
    out = await outcome(event(), frame(image))
    assert out.topic == ALERTS
    data = decode_json(Alert, out.value).data
    assert data.evidence == ()
    assert data.evidence_missing


@pytest.mark.parametrize("offset", [1, 10**15])
async def test_an_alert_of_a_frame_that_is_not_in_the_log_states_why_it_has_no_picture(offset: int) -> None:
    out = await outcome(event(frame=[FRAMES, 0, offset]))
    assert "no longer in the Kafka topic" in decode_json(Alert, out.value).data.evidence_missing


async def test_a_written_alert_with_a_header_that_is_not_utf8_does_not_stop_a_new_partition_owner() -> None:
    log = MemoryLog(partitions=1)
    await log.produce(Outgoing(ALERTS, 0, b"", headers={ID: b"\xff\xfe"}))
    assert (await outcome(event(), log=log)).topic == ALERTS


async def test_a_kafka_log_that_does_not_answer_ends_the_process_and_makes_no_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def unavailable(self: MemoryLog, topic: str) -> dict[int, int]:
        raise LogUnavailable("no broker")

    log = MemoryLog(partitions=1)
    await log.produce(frame())
    processor = await AlertStage(MemoryStore(), 1).open(TopicPartition(EVENTS, 0), 0, log)
    monkeypatch.setattr(MemoryLog, "beginnings", unavailable)
    with pytest.raises(LogUnavailable):
        await asyncio.to_thread(processor.process, LogRecord(EVENTS, 0, 9, None, event()))
