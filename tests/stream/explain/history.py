"""A log with the complete history of one camera: frames, batches, results, events, alerts and receipts."""

from __future__ import annotations

import cv2
import numpy as np

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.identity import LIVE, FrameId
from ingest.contract.records import (
    Alert,
    Box,
    Delivery,
    Detection,
    Event,
    Evidence,
    Frame,
    FrameRef,
    Result,
    WithheldInterval,
)
from ingest.contract.topics import ALERTS, BATCHES, DELIVERIES, FRAMES, FRAMES_LATE, RESULTS
from ingest.kafka.log import Log, Outgoing, TopicPartition
from ingest.site import CameraConfig, ConfigEntry, MeasureConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream.alerts.alert import make_alert
from stream.alerts.incidents import ID
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.stage import AnalyseStage

CAMERA = CameraConfig(name="road", source="simulated:road", site="here")
PIPELINE = PipelineConfig(name="p", model="m", width=64, height=64)
LINE = LineRule(name="line", camera="road", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0), cooldown_s=60.0)
ZONE = ZoneRule(name="left", camera="road", pipeline="p", polygon=((0.0, 0.0), (0.2, 0.0), (0.2, 1.0), (0.0, 1.0)))
MEASURE = MeasureConfig(name="all", type="zone", camera="road", pipeline="p", polygon=ZONE.polygon, min_score=0.1)
"""A measure that lowers the score at which a track begins from 0.3 to 0.1."""
BEGIN_NS = 1_780_000_000 * 10**9
EPOCH = 1_780_000_000
FPS = 5
CROSSING = 18
"""Sequence number of the frame in which the car has crossed the line at the middle of the picture."""


def config(*entries: ConfigEntry) -> Config:
    return Config({entry.key: entry for entry in (CAMERA, PIPELINE, *(entries or (LINE, ZONE)))})


def car(x: float, score: float = 0.9) -> Detection:
    return Detection(box=Box(x - 30.0, 160.0, x + 30.0, 200.0), label="car", class_id=1, score=score)


def jpeg() -> bytes:
    return cv2.imencode(".jpg", np.full((360, 640, 3), 90, np.uint8))[1].tobytes()


def frame(seq: int, account: WithheldInterval | None = None) -> Frame:
    return Frame(
        camera="road",
        epoch=EPOCH,
        seq=seq,
        captured_ns=BEGIN_NS + seq * 10**9 // FPS,
        width=640,
        height=360,
        motion=(Box(10, 10, 60, 60),),
        captured_error_ms=12.0,
        image=jpeg(),
        account=account,
    )


def result(seq: int, *found: Detection, offset: int = 0, reason: str = "") -> Result:
    return Result(
        camera="road",
        epoch=EPOCH,
        seq=seq,
        lane=LIVE,
        pipeline="p",
        pipelines=("p",),
        captured_ns=BEGIN_NS + seq * 10**9 // FPS,
        finished_ns=BEGIN_NS + seq * 10**9 // FPS + 50_000_000,
        width=640,
        height=360,
        source=FrameRef("frames", 0, offset),
        outcome="shed" if reason else "classified",
        reason=reason,
        model="m@1",
        detections=found,
    )


async def write_frame(log: Log, one: Frame, lane: str = LIVE) -> int:
    headers = h.frame_headers([one.id], lane)
    if one.account:
        headers[h.ACCOUNT] = h.account_text(one.account).encode()
    return (
        await log.produce(
            Outgoing(FRAMES if lane == LIVE else FRAMES_LATE, 0, encode(one), key=b"road", headers=headers)
        )
    ).offset


async def write_drive(log: Log, first: int = 0, last: int = 29) -> None:
    """Write frames, batches and results of a car that drives from left to right, 16 px a frame.

    The agent has withheld frame 5. The engine has shed frame 20.
    """
    for seq in range(first, last + 1):
        if seq == 5:
            continue
        account = WithheldInterval(camera="road", epoch=EPOCH, first=5, last=5, counts={"still": 1})
        offset = await write_frame(log, frame(seq, account if seq == 6 else None))
        id_headers = h.frame_headers([FrameId("road", EPOCH, seq)], LIVE)
        await log.produce(Outgoing(BATCHES, 0, b"", headers=id_headers | {h.PIPELINE: b"p"}))
        shed = "overload" if seq == 20 else ""
        found = () if shed else (car(64.0 + 16.0 * seq),)
        await log.produce(
            Outgoing(RESULTS, 0, encode(result(seq, *found, offset=offset, reason=shed)), headers=id_headers)
        )


async def analyse(log: Log, used: Config) -> list[Event]:
    """Run the stage ``analyse`` over all results, write its events to the log, and return the events."""
    ends = await log.ends(RESULTS)
    processor = await AnalyseStage(used, 1).open(TopicPartition(RESULTS, 0), 0, log)
    events = []
    async for record in log.read(RESULTS, 0, 0, ends[0]):
        for out in [out for work in processor.process(record) for out in work.records]:
            await log.produce(out)
            events.append(decode_json(Event, out.value))
    return events


async def alert(log: Log, event: Event) -> Alert:
    """Write the alert of an event, a failed delivery and a successful delivery."""
    stored = Evidence(name="road/a-annotated.jpg", url="file:///a", sha256="0", media_type="image/jpeg")
    made = make_alert(event, (stored,))
    await log.produce(Outgoing(ALERTS, 0, encode_json(made), headers={ID: made.id.encode()}))
    for attempt, state in ((1, "retrying"), (2, "delivered")):
        receipt = Delivery(
            alert=made.id,
            incident=event.data.incident,
            receiver="desk",
            state=state,  # type: ignore[arg-type]
            attempt=attempt,
            status=503 if attempt == 1 else 204,
            attempted_ns=BEGIN_NS + attempt * 10**9,
        )
        await log.produce(Outgoing(DELIVERIES, 0, encode_json(receipt)))
    return made
