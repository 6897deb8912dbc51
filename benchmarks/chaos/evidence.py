"""The evidence of a chaos run: the audit, the records on the topics, the posts, and a replay without faults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos.judge import ChaosEvidence, InjectedFault, Post
from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, Delivery, Event
from ingest.contract.topics import ALERTS, DEADLETTER, DELIVERIES, EVENTS, READINGS, RESULTS
from ingest.kafka.log import Log, LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.ledger.auditor import audit
from ingest.runtime.clock import ManualClock
from ingest.site import Site
from ingest.site.topic.view import Config
from stream.analyse.stage import AnalyseStage
from stream.runner.memory import MemoryRunner
from stream.runner.processor import Stage
from stream.sense.stage import SenseStage

AUDIT_WAIT_S = 60.0
"""Maximum time that the audit waits for frames in processing, in seconds."""
SILENT_S = 600.0
"""Seconds by which a replay advances its clock at the end, so that the last time window of every sensor closes."""


async def gather(
    log: Log, site: Site, received: Path, injected: list[InjectedFault], problems: list[str]
) -> ChaosEvidence:
    """Return the evidence of a run that has ended. Raise LogUnavailable."""
    balance = await audit(log, wait_s=AUDIT_WAIT_S)
    alerts = [decode_json(Alert, record.value) for record in await records_of(log, ALERTS)]
    receipts: dict[str, str] = {}
    for record in await records_of(log, DELIVERIES):
        receipt = decode_json(Delivery, record.value)
        if receipts.get(receipt.alert) != "delivered":  # a delivery stays delivered
            receipts[receipt.alert] = receipt.state
    return ChaosEvidence(
        balance.totals.to_dict(),
        balance.balanced,
        injected,
        posts_in(received),
        [decode_json(Event, record.value) for record in await records_of(log, EVENTS)],
        await replayed_events(log, site),
        [alert.id for alert in alerts if alert.data.change != "end"],
        receipts,
        len(await records_of(log, DEADLETTER)),
        problems,
    )


async def replayed_events(log: Log, site: Site) -> list[Event]:
    """Replay the results and readings of a log through stages that never restart, and return the raised events."""
    config = Config({entry.key: entry for entry in site.entries()})
    partitions = (await log.partitions())[EVENTS]
    events = list[Event]()
    clock = ManualClock()
    stages: Sequence[tuple[str, Stage]] = (
        (RESULTS, AnalyseStage(config, partitions)),
        (READINGS, SenseStage(config, partitions, clock=clock)),
    )
    for topic, stage in stages:
        copy = MemoryLog(partitions=(await log.partitions())[topic], clock=clock)
        for record in await records_of(log, topic):
            await copy.produce(
                Outgoing(topic, record.partition, record.value, key=record.key, headers=record.headers)
            )
        runner = MemoryRunner(stage, copy, clock)
        await runner.run()
        await runner.advance(SILENT_S)
        events += [decode_json(Event, record.value) for record in await records_of(copy, EVENTS)]
    return events


def posts_in(received: Path) -> list[Post]:
    """Return the posts in a receiver's file.

    Skip a line that a kill truncated, because the receiver had not answered the post of this line.
    """
    posts = list[Post]()
    for line in received.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            posts.append(Post(entry["received_ns"], entry["id"]))
        except (ValueError, TypeError, KeyError):
            continue
    return posts


async def records_of(log: Log, topic: str) -> list[LogRecord]:
    """Return all records of a topic. Raise LogUnavailable."""
    firsts, ends = await log.beginnings(topic), await log.ends(topic)
    return [
        record
        for partition, end in ends.items()
        async for record in log.read(topic, partition, firsts[partition], end)
    ]
