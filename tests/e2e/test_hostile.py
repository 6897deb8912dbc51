"""Test of hostile records on every topic, with all services on a real Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from deploy.local.supervisor import Supervisor
from edge_agent.sources.simulated import SceneConfig, SimulatedScene
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode, encode_json
from ingest.contract.records import (
    Alert,
    AlertData,
    Batch,
    BatchItem,
    Delivery,
    Event,
    EventData,
    Frame,
    FrameRef,
    Heartbeat,
    Readings,
    Record,
    Result,
    RoutedFrame,
)
from ingest.contract.topics import (
    ALERTS,
    BATCHES,
    CONFIG,
    DEADLETTER,
    DELIVERIES,
    EVENTS,
    FRAMES,
    READINGS,
    RESULTS,
    STATUS,
)
from ingest.deadletter import letters
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import LogRecord
from ingest.ledger.auditor import audit
from ingest.runtime.clock import Deadline
from ingest.site import ReceiverConfig
from ingest.site.topic.store import publish, read
from tests.e2e.hostile import good_but_strange, hostile_records, send_raw
from tests.e2e.test_garbage import CAMERA, MODELS, PIPELINE, good, log, stack  # noqa: F401 (fixtures)

pytestmark = [pytest.mark.e2e, pytest.mark.kafka, pytest.mark.timeout(480)]

EPOCH = 1_700_000_000
ROUTED = {
    "camera": "foreign",
    "epoch": EPOCH,
    "seq": 1,
    "captured_ns": 1,
    "width": 8,
    "height": 8,
    "lane": "live",
    "source": FrameRef(FRAMES, 0, 0),
    "pipelines": ("regions",),
}
ITEM = BatchItem(**ROUTED, outcome="empty")
DATA = EventData(incident="incident", rule="rule", sensor="oven", summary="too hot")
ENVELOPE = {"source": "/oven", "type": "sightline.threshold", "subject": "oven", "time": "2026-01-02T03:04:05Z"}
RECORDS: Mapping[str, Record] = {
    FRAMES: Frame(camera="foreign", epoch=EPOCH, seq=1, captured_ns=1, width=8, height=8, image=b"none"),
    BATCHES: Batch(pipeline="regions", height=64, width=64, channels=3, items=(ITEM,), pixels=b""),
    READINGS: Readings(
        sensor="oven", epoch=1, seq=0, quantity="heat", unit="Cel", times_ns=(1,), values=(1.0,), quality=(0,)
    ),
    RESULTS: Result(**ITEM.fields_of(RoutedFrame), pipeline="regions", finished_ns=2, outcome="empty"),
    EVENTS: Event(id="event", **ENVELOPE, data=DATA),
    ALERTS: Alert(id="alert", **ENVELOPE, data=AlertData(**DATA.model_dump(), event="event")),
    DELIVERIES: Delivery(
        alert="alert", incident="incident", receiver="nobody", state="retrying", attempt=1, attempted_ns=1
    ),
    STATUS: Heartbeat(service="foreign", instance="a", at_ns=1),
    DEADLETTER: Heartbeat(service="foreign", instance="a", at_ns=1),
    CONFIG: Heartbeat(service="foreign", instance="a", at_ns=1),
}
PARKING = (FRAMES, BATCHES, READINGS, RESULTS, EVENTS, ALERTS)
"""Topics whose refused records become dead letters."""


async def wave(log: KafkaLog, producer: AIOKafkaProducer, number: int) -> set[str]:  # noqa: F811
    """Write hostile records to every topic, and good records behind them.

    Return the partitions and offsets of the records that must become dead letters.
    """
    refused = set()
    for topic, record in RECORDS.items():
        records = hostile_records(record, seed=number)
        offsets = await send_raw(producer, log.settings.topic(topic), records)
        if topic in PARKING:
            bad = zip(records, offsets, strict=True)
            refused |= {f"{topic}[0]@{offset}" for each, offset in bad if each.refused}
    event = RECORDS[EVENTS].model_copy(update={"id": f"good-{number}"})
    alert = RECORDS[ALERTS].model_copy(update={"id": f"good-{number}"})
    values = {
        FRAMES: good(number, SimulatedScene(SceneConfig("road"))),
        EVENTS: encode_json(event),
        ALERTS: encode_json(alert),
        READINGS: encode(RECORDS[READINGS]),
        RESULTS: encode(RECORDS[RESULTS]),
    }
    for topic, value in values.items():
        await send_raw(producer, log.settings.topic(topic), [good_but_strange(value)])
    return refused


async def missing(log: KafkaLog, refused: set[str]) -> set[str]:  # noqa: F811
    """Return the partitions and offsets of refused records that have no dead letter with a reason."""
    return refused - {x.position async for x in letters(log) if x.failure.error and x.failure.message}


async def came_out(log: KafkaLog) -> bool:  # noqa: F811
    """Return whether all good frames have results, all good events have alerts, and all good alerts have delivery
    attempts."""
    results = await values_of(log, RESULTS)
    frames = {decode(Result, r.value).seq for r in results if r.headers.get(h.FRAMES, b"").startswith(b"road/1")}
    raised = [r for r in await values_of(log, ALERTS) if h.CLOUD_EVENT.items() <= r.headers.items()]
    attempted = {r.key for r in await values_of(log, DELIVERIES)}
    return frames >= {1, 2} and len(raised) >= 2 and attempted >= {b"good-1", b"good-2"}


async def values_of(log: KafkaLog, topic: str) -> list[LogRecord]:  # noqa: F811
    return [record async for record in log.read(topic, 0, 0, (await log.ends(topic))[0])]


async def test_hostile_records_become_dead_letters_and_good_records_after_them_are_processed(
    log: KafkaLog,  # noqa: F811
    stack: Callable[..., Awaitable[Supervisor]],  # noqa: F811
    tmp_path: Path,
) -> None:
    """The first wave of records is written before the services start, so that the services read it back.

    The second wave is written while the services run.
    """
    (tmp_path / "secret").write_text("whsec_" + "a" * 32)
    url = "http://127.0.0.1:9/"
    receiver = ReceiverConfig(
        name="nobody", url=url, secret_file=tmp_path / "secret", history=True, allow_private=True
    )
    await publish(log, [CAMERA, PIPELINE, receiver])
    producer = AIOKafkaProducer(bootstrap_servers=log.settings.bootstrap, max_batch_size=1 << 20)
    await producer.start()
    try:
        refused = await wave(log, producer, 1)
        commands = {
            "dispatch": ["dispatch"],
            "alerts": ["alerts", f"--evidence={tmp_path}"],
            "analyse": ["analyse"],
            "sense": ["sense"],
            "engine": ["engine", f"--models={MODELS}"],
            "prepare-live": ["prepare", "--lane=live"],
        }
        for name, argv in commands.items():
            supervisor = await stack(name, *argv)
        refused |= await wave(log, producer, 2)
    finally:
        await producer.stop()

    async def finished() -> bool:
        return not await missing(log, refused) and await came_out(log)

    deadline = Deadline.after(120)
    while not await finished():
        restarts, left = supervisor.restarts(), sorted(await missing(log, refused))
        assert not deadline.passed, (restarts, left, await came_out(log))
        await asyncio.sleep(0.5)
    assert max(supervisor.restarts().values()) <= 1, supervisor.restarts()
    assert {entry.name for entry in (await read(log)).entries.values()} >= {"road", "regions", "nobody"}
    assert (await audit(log, wait_s=0)).totals.classified >= 2
