"""Records of a small deployment for the tests of the console: cameras gate (site north) and yard (site south)."""

from __future__ import annotations

from typing import Any

from ingest.contract.codec import encode, encode_json
from ingest.contract.identity import LIVE
from ingest.contract.records import (
    Alert,
    AlertData,
    Box,
    CameraState,
    CameraStatus,
    Delivery,
    Detection,
    Event,
    EventData,
    Evidence,
    Frame,
    FrameRef,
    Heartbeat,
    Measure,
    Overlay,
    Result,
)
from ingest.contract.records.event import DeliveryState
from ingest.contract.topics import ALERTS, DELIVERIES, EVENTS, FRAMES, RESULTS, STATUS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.site import CameraConfig, RuleEntry, SensorConfig
from ingest.site.picture import RedactConfig
from ingest.site.topic.store import publish

CAPTURED_NS = 1_700_000_000_000_000_000
JPEG = b"\xff\xd8 not decoded by the console \xff\xd9"
MINUTE_NS = 60_000_000_000
MASK = ((0.0, 0.0), (0.1, 0.0), (0.1, 0.1))


async def configure(log: MemoryLog, *extra: CameraConfig | RuleEntry) -> None:
    """Write the configuration of the deployment, and further entries."""
    zone = {"polygon": [[0.1, 0.1], [0.5, 0.1], [0.5, 0.9]], "camera": "gate", "pipeline": "regions"}
    line = {"start": [0.0, 0.5], "end": [1.0, 0.5], "camera": "yard", "pipeline": "regions"}
    entries = (
        CameraConfig(name="gate", source="device:0", site="north", place="door", redact=RedactConfig(masks=(MASK,))),
        CameraConfig(name="yard", source="device:1", site="south"),
        SensorConfig(name="boiler", source="simulated:temperature", site="south", quantity="temperature", unit="Cel"),
        RuleEntry(name="inside", type="zone", **zone),
        RuleEntry(name="across", type="line", **line),
        *extra,
    )
    await publish(log, entries)


def frame(camera: str, seq: int, *, image: bytes = JPEG) -> Frame:
    """Return a frame of ten per second."""
    at_ns = CAPTURED_NS + seq * 100_000_000
    return Frame(camera=camera, epoch=1, seq=seq, captured_ns=at_ns, width=64, height=36, image=image)


def result(
    camera: str, seq: int, label: str = "car", pipeline: str = "one", pipelines: tuple[str, ...] = ("one",)
) -> Result:
    """Return a result with one detection."""
    return Result(
        camera=camera,
        epoch=1,
        seq=seq,
        captured_ns=CAPTURED_NS + seq * 100_000_000,
        width=64,
        height=36,
        lane=LIVE,
        source=FrameRef(FRAMES, 0, seq),
        pipelines=pipelines,
        pipeline=pipeline,
        finished_ns=CAPTURED_NS + seq * 100_000_000 + 50_000_000,
        outcome="classified",
        model="m@1",
        detections=(Detection(box=Box(1.2, 2.0, 30.0, 20.0), label=label, class_id=0, score=0.876),),
    )


def status(camera: str, state: CameraState = "running", **counts: Any) -> CameraStatus:
    """Return the status of a camera."""
    return CameraStatus(camera=camera, epoch=1, state=state, **counts)


def event(number: int, camera: str | None = "gate", **fields: Any) -> Event:
    """Return an event; a higher number is a later event. Without a camera, it is an event of the sensor boiler."""
    site = {"gate": "north", "yard": "south"}.get(camera or "", "south")
    at_ns = CAPTURED_NS + number * 1_000_000_000
    data: dict[str, Any] = {
        "incident": f"incident-{number}",
        "rule": "inside",
        "site": site,
        "camera": camera,
        "sensor": None if camera else "boiler",
        "summary": f"summary {number}",
        "label": "person",
        "epoch": 1,
        "seq": number,
        "captured_ns": at_ns if camera else 0,
        "frame": FrameRef(FRAMES, 0, number) if camera else None,
        "overlay": Overlay(shape=((1, 2), (30, 2)), box=Box(1, 2, 3, 4)),
    }
    second = at_ns // 1_000_000_000 - 1_699_999_980
    return Event(
        id=f"event-{number}",
        source="/north/gate",
        type="sightline.zone.entered",
        subject=camera or "boiler",
        time=f"2023-11-14T22:{13 + second // 60}:{second % 60:02}Z",
        data=EventData(**{**data, **fields}),
    )


def alert(of: Event, *evidence: Evidence) -> Alert:
    """Return the alert of an event."""
    fields = {name: getattr(of.data, name) for name in type(of.data).model_fields}
    return Alert(
        id=f"msg_{of.id}",
        source=of.source,
        type="sightline.alert",
        subject=of.subject,
        time=of.time,
        data=AlertData(**fields, event=of.id, evidence=evidence),
    )


def receipt(of: Alert, state: DeliveryState, attempt: int = 1, receiver: str = "pager") -> Delivery:
    """Return the receipt of an attempt to deliver an alert."""
    return Delivery(
        alert=of.id,
        incident=of.data.incident,
        receiver=receiver,
        state=state,
        attempt=attempt,
        status=204 if state == "delivered" else 500,
        reason="" if state == "delivered" else "server error",
        attempted_ns=CAPTURED_NS + attempt * 1_000_000_000,
    )


async def write(
    log: MemoryLog, *records: Frame | Result | Event | Alert | Delivery | Heartbeat | CameraStatus
) -> None:
    """Write records to their topics. A status is written in a heartbeat of an agent."""
    for record in records:
        if isinstance(record, CameraStatus):
            record = Heartbeat(service="agent", instance="agent-1", at_ns=CAPTURED_NS, cameras=(record,))
        topic = _TOPICS[type(record)]
        as_bytes = encode_json if isinstance(record, Event | Alert | Delivery) else encode
        await log.produce(Outgoing(topic, 0, as_bytes(record)))


_TOPICS = {Frame: FRAMES, Result: RESULTS, Event: EVENTS, Alert: ALERTS, Delivery: DELIVERIES, Heartbeat: STATUS}


def minute(
    number: int, values: dict[str, float] | None = None, *, name: str = "bridge", camera: str = "gate", **fields: Any
) -> Measure:
    """Return the minute ``number`` of a line measure of a camera."""
    site = {"gate": "north", "yard": "south"}[camera]
    start_ns = CAPTURED_NS // MINUTE_NS * MINUTE_NS + number * MINUTE_NS
    base = {"id": f"{name}-{number}-{fields.get('revision', 0)}", "name": name, "type": "line", "site": site}
    given = {"camera": camera, "pipeline": "one", "start_ns": start_ns, "observed": 1.0, "values": values or {}}
    return Measure(**{**base, **given, **fields})
