"""Records of each kind for the tests of the codec."""

from __future__ import annotations

from typing import Any

import msgpack

from ingest.contract.codec import encode
from ingest.contract.records import (
    Alert,
    AlertData,
    Batch,
    BatchItem,
    Box,
    CameraStatus,
    Delivery,
    Detection,
    Embedding,
    EpochEnd,
    Event,
    EventData,
    Evidence,
    Fit,
    Frame,
    FrameRef,
    Heartbeat,
    Inner,
    Overlay,
    Readings,
    Record,
    Redacted,
    Region,
    Result,
    RoutedFrame,
    WithheldInterval,
)

ACCOUNT = WithheldInterval(camera="gate", epoch=5, first=0, last=6, counts={"still": 4, "rate": 3})
FRAME = Frame(
    camera="gate",
    epoch=5,
    seq=7,
    captured_ns=1_700_000_000_000_000_001,
    width=640,
    height=360,
    image=b"\xff\xd8\xff\x00",
    quality=40,
    scaled_from=(1280, 720),
    redacted=Redacted(masks=1, faces=2, held=1, method="pixelate", models=("faces.onnx@sha256:0123456789ab",)),
    motion=(Box(1.0, 2.5, 30.0, 40.0),),
    account=ACCOUNT,
)
REGION = Region(Box(0.0, 0.0, 640.0, 360.0), Fit(0.003125, 0.00278, 0.0, 0.0), Inner(0, 0, 2, 1))
ITEM = BatchItem(
    camera="gate",
    epoch=5,
    seq=7,
    lane="live",
    captured_ns=1,
    width=640,
    height=360,
    source=FrameRef("frames", 0, 17),
    pipelines=("cars",),
    outcome="classify",
    regions=(REGION,),
    withheld={"still": 2},
)
BATCH = Batch(pipeline="cars", height=2, width=2, channels=3, items=(ITEM,), pixels=bytes(range(6)))
RESULT = Result(
    **ITEM.fields_of(RoutedFrame),
    pipeline="cars",
    finished_ns=2,
    outcome="classified",
    detections=(
        Detection(
            box=Box(1.0, 2.0, 3.0, 4.0),
            label="car",
            class_id=2,
            score=0.5,
            embeddings=(Embedding(name="look", model="appearance@1", values=bytes(range(256))),),
        ),
    ),
)
READINGS = Readings(
    sensor="t-1",
    epoch=1,
    seq=0,
    quantity="temperature",
    unit="Cel",
    times_ns=(1, 2),
    values=(1.5, 2.0),
    quality=(0, 1),
)
BEAT = Heartbeat(
    service="agent",
    instance="a",
    at_ns=9,
    cameras=(CameraStatus(camera="gate", epoch=5, state="running"),),
    accounts=(ACCOUNT,),
    ended=(EpochEnd(camera="gate", epoch=4, last=-1, clean=False, reported=3),),
    figures={"lag": 0.5},
)
MSGPACK: list[Record] = [FRAME, BATCH, RESULT, READINGS, BEAT]

DATA = EventData(incident="i", rule="fence", camera="gate", summary="someone", overlay=Overlay(shape=((0.0, 1.0),)))
ENVELOPE = {
    "id": "e1",
    "source": "sightline",
    "type": "sightline.zone",
    "subject": "gate",
    "time": "2026-01-02T03:04:05Z",
}
EVENT = Event(**ENVELOPE, data=DATA)
EVIDENCE = Evidence(name="e1.jpg", url="file:///e1.jpg", sha256="00", media_type="image/jpeg", size=4)
ALERT = Alert(**ENVELOPE, data=AlertData(**DATA.model_dump(), event="e1", evidence=(EVIDENCE,)))
DELIVERY = Delivery(
    alert="a", incident="i", receiver="pager", state="delivered", attempt=1, status=200, attempted_ns=1
)
JSON: list[Record] = [EVENT, ALERT, DELIVERY]


def fields(record: Record, **changed: Any) -> bytes:
    """Return a record's bytes with some fields changed, or removed where the value is None."""
    values = {**msgpack.unpackb(encode(record)), **changed}
    data: bytes = msgpack.packb({name: value for name, value in values.items() if value is not None})
    return data
