"""Measure the live skill of a model's canary version from the log, and roll the canary back.

The live skill depends only on the log, on the canary and on the promoted version, so that a restarted
`sightline models watch` comes to the same verdict.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

from engines.node.jobs import STAGE
from engines.repository.canary import Canary, end_canary, read_canary
from engines.repository.store import Repository
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode_json
from ingest.contract.identity import LIVE
from ingest.contract.records import Event, EventData, Result, ShadowRecord
from ingest.contract.topics import DEADLETTER, EVENTS, RESULTS, SHADOW, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.runtime import logs
from ingest.site import PipelineConfig
from ingest.site.topic.store import read
from stream.events import event_id, rfc3339
from training.canary.skill import LiveSkill, SkillLimits

_log = logs.get("training.canary")

EVENT_TYPE = "sightline.model.rolled_back"
RULE = "canary"
"""Name of the rule in the event of a rolled-back canary."""


async def measure(log: Log, canary: Canary, promoted: str, limits: SkillLimits, now_ns: int) -> LiveSkill:
    """Return the live skill of a canary over the last ``limits.window_s`` seconds, at most since the canary began.

    ``promoted`` is the promoted version, such as ``regions@1``. Comparisons with other versions do not count.

    Raise LogUnavailable.
    """
    begin_ns = max(canary.since_ns, now_ns - round(limits.window_s * 1e9))
    skill = LiveSkill(max(0.0, (now_ns - begin_ns) / 1e9))
    begin_ms, now_ms = begin_ns // 10**6, now_ns // 10**6
    pipelines = {one.name for one in (await read(log)).of(PipelineConfig) if one.model == canary.model}
    async for record in _written(log, RESULTS, begin_ms, now_ms):
        result = _result(record)
        if result and result.lane == LIVE and result.model.partition("@")[0] == canary.model:
            pipelines.add(result.pipeline)
            side = skill.canary if result.model == canary.id else skill.others
            side.frames += 1
    async for record in _written(log, DEADLETTER, begin_ms, now_ms):
        failure, is_live = h.read_failure(record.headers), h.lane_of(record.headers, record.topic) == LIVE
        pipeline = h.pipeline_of(record.headers)
        if failure and failure.stage == STAGE and is_live and pipeline in pipelines:
            for frame in h.frames_of(record.headers):
                side = skill.canary if canary.serves(frame.camera) else skill.others
                side.errors += 1
    for served, count in (await _events(log, canary, begin_ms, now_ms)).items():
        (skill.canary if served else skill.others).events = count
    since_ms = canary.since_ns // 10**6
    for served, count in (await _events(log, canary, since_ms - (now_ms - begin_ms), since_ms)).items():
        (skill.canary if served else skill.others).events_before = count
    async for record in _written(log, SHADOW, begin_ms, now_ms):
        _add_comparison(skill, canary, promoted, record)
    return skill


async def roll_back(
    log: Log, repository: Repository, canary: Canary, reasons: list[str], now_ns: int
) -> Event | None:
    """End a canary, and report the rollback as an event, as a log line, and in the audit trail.

    Do nothing and return None if the canary has ended or was replaced since it was measured.

    If this process is killed before the canary has ended, the next process writes the same event again and ends the
    canary. Raise LogUnavailable, AdoptFailed or ManifestError.
    """
    if read_canary(repository, canary.model) != canary:
        return None
    reason = "; ".join(reasons)
    event = event_of(canary, reason, now_ns)
    partition = partition_for(event.place, len(await log.ends(EVENTS)))
    headers = {**h.CLOUD_EVENT, h.LANE: LIVE.encode()}
    await log.produce(Outgoing(EVENTS, partition, encode_json(event), key=event.subject.encode(), headers=headers))
    end_canary(repository, canary, "rolled back", now_ns, reason)
    _log.error("canary_rolled_back", model=canary.id, share=canary.share, reason=reason)
    return event


def event_of(canary: Canary, reason: str, now_ns: int) -> Event:
    """Return the event of a rolled-back canary. All events of one canary's rollback have the same id."""
    identity = event_id(EVENT_TYPE, canary.id, canary.since_ns)
    return Event(
        id=identity,
        source=f"/models/{canary.model}",
        type=EVENT_TYPE,
        subject=canary.model,
        time=rfc3339(now_ns),
        data=EventData(
            incident=identity,
            rule=RULE,
            severity="critical",
            summary=f"canary {canary.id} was rolled back: {reason}"[:2000],
            details={"model": canary.id, "share": canary.share},
            captured_ns=now_ns,
        ),
    )


async def _events(log: Log, canary: Canary, begin_ms: int, end_ms: int) -> dict[bool, int]:
    """Return the numbers of events of the canary's cameras (True) and of all other cameras (False) in a period."""
    counts = {True: 0, False: 0}
    async for record in _written(log, EVENTS, begin_ms, end_ms):
        for frame in h.frames_of(record.headers):
            counts[canary.serves(frame.camera)] += 1
    return counts


async def _written(log: Log, topic: str, begin_ms: int, end_ms: int) -> AsyncIterator[LogRecord]:
    """Yield the records of all partitions of a topic that were written in a period."""
    for partition, end in (await log.ends(topic)).items():
        tp = TopicPartition(topic, partition)
        start, stop = [min(await log.offset_at(tp, at_ms), end) for at_ms in (begin_ms, end_ms)]
        async with aclosing(log.read(*tp, start, stop)) as records:
            async for record in records:
                yield record


def _result(record: LogRecord) -> Result | None:
    try:
        return decode(Result, record.value)
    except CodecError:
        return None


def _add_comparison(skill: LiveSkill, canary: Canary, promoted: str, record: LogRecord) -> None:
    try:
        found = decode(ShadowRecord, record.value)
    except CodecError:
        return
    if found.off or found.served != canary.id or found.candidate != promoted:
        return
    agreed = sum(found.agreed.values())
    skill.compared += 1
    skill.agreed += agreed
    skill.objects += agreed + sum(one.form != "score" for one in found.differences)
