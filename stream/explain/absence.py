"""Why the log has no record of a frame: withheld, in a spool, not captured, or deleted by retention."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import FrameId
from ingest.contract.records import FrameRef, Heartbeat, WithheldInterval
from ingest.contract.topics import FRAMES, FRAMES_LATE, RESULTS, STATUS, TOPICS
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.runtime.clock import Clock, SystemClock
from stream.exceptions import FrameNotFound
from stream.explain.search import first_from, place_in, written_from


@dataclass(frozen=True, slots=True)
class Absence:
    """The state of a frame without a readable record, and the reason in words.

    The state is ``withheld``, ``spooled``, ``unclean``, ``unreported``, ``unreadable`` or ``expired``.
    ``account`` is the interval of withheld frames that holds the frame.
    """

    state: str
    reason: str
    account: WithheldInterval | None = None


async def absence_of(log: Log, frame: FrameId, partition: int, known: bool) -> Absence:
    """Return why the log has neither a record nor a result of a frame.

    ``known`` tells whether the configuration has the camera. Raise FrameNotFound if the camera is unknown, if
    retention has deleted the frame, or if no agent has reported it. Raise LogUnavailable.
    """
    oldest: LogRecord | None = None
    for topic in (FRAMES, FRAMES_LATE):
        tp, place_of = TopicPartition(topic, partition), place_in(frame.camera)
        after = await first_from(log, tp, (frame.epoch, frame.seq), place_of)
        account = _account_before(after, frame)
        if account:
            return _withheld(
                account, f"the record of the next frame, {topic}[{partition}]@{after.offset if after else 0}"
            )
        first = await first_from(log, tp, (0, 0), place_of)
        if first and (oldest is None or first.timestamp_ms < oldest.timestamp_ms):
            oldest = first
    reported = await _reported(log, frame)
    if reported:
        return reported
    if oldest is None and not known:
        raise FrameNotFound(
            f"camera {frame.camera}: neither the log nor the configuration has this camera. "
            "`sightline config show` prints the cameras"
        )
    begins = [(await log.beginnings(topic))[partition] for topic in (FRAMES, FRAMES_LATE)]
    first_id = (
        next((one for one in h.frames_of(oldest.headers) if one.camera == frame.camera), None) if oldest else None
    )
    if any(begins) and (first_id is None or (frame.epoch, frame.seq) < (first_id.epoch, first_id.seq)):
        since = f"begins with {first_id}" if first_id else "has no frame of this camera any more"
        raise FrameNotFound(
            f"frame {frame} has expired: the topic frames keeps {_hours(FRAMES)} hours, and {since}. "
            f"Results are kept for {_hours(RESULTS)} hours, but none is left of this frame"
        )
    expected = f"a frame from {first_id} on" if first_id else "a camera that has sent a frame"
    raise FrameNotFound(f"frame {frame}: no record, and no agent has reported it: expected {expected}")


async def expired(log: Log, source: FrameRef, clock: Clock | None = None) -> Absence:
    """Return why the record of a frame is missing that has results."""
    begins = (await log.beginnings(source.topic)).get(source.partition, 0)
    position = f"{source.topic}[{source.partition}]@{source.offset}"
    if source.offset < begins:
        return Absence(
            "expired", f"retention has deleted {position}: {source.topic} keeps {_hours(source.topic)} hours"
        )
    return Absence("unreadable", f"the record {position} does not name this frame")


async def _reported(log: Log, frame: FrameId) -> Absence | None:
    """Return the newest state of a frame in the heartbeats of agents."""
    found: Absence | None = None
    since_ms = min(frame.epoch * 1000, SystemClock().now_ns() // 1_000_000)
    async with aclosing(written_from(log, TopicPartition(STATUS, 0), since_ms)) as records:
        async for record in records:
            if frame.camera.encode() not in record.value:
                continue
            try:
                beat = decode(Heartbeat, record.value)
            except CodecError:
                continue
            found = _in_heartbeat(beat, frame) or found
            if found and found.state == "withheld":
                return found
    return found


def _in_heartbeat(beat: Heartbeat, frame: FrameId) -> Absence | None:
    own = (frame.camera, frame.epoch)
    for account in beat.accounts:
        if (account.camera, account.epoch) == own and account.first <= frame.seq <= account.last:
            return _withheld(account, f"a heartbeat of {beat.instance}")
    for one in beat.waiting or ():
        if (one.camera, one.epoch) == own and one.first <= frame.seq <= one.last:
            return Absence("spooled", f"the spool of {beat.instance} holds frames {one.first} to {one.last}")
    for end in beat.ended:
        if (end.camera, end.epoch) == own and not end.clean and end.last < frame.seq <= end.reported:
            return Absence("unclean", f"the capture was killed after frame {end.last}, before this frame was stored")
    if any((one.camera, one.epoch) == own and frame.seq < one.captured for one in beat.cameras):
        return Absence(
            "unreported",
            "captured, but neither delivered nor reported as withheld yet. The record of the "
            "camera's next frame, or the end of its capture, reports it",
        )
    return None


def _account_before(after: LogRecord | None, frame: FrameId) -> WithheldInterval | None:
    """Return the interval of withheld frames before the next delivered frame, if it holds ``frame``."""
    for one in h.frames_of(after.headers) if after else ():
        account = h.account_of(after.headers, one) if after else None
        if account and (account.camera, account.epoch) == (frame.camera, frame.epoch) and account.first <= frame.seq:
            return account
    return None


def _withheld(account: WithheldInterval, where: str) -> Absence:
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(account.counts.items()) if count)
    length = account.last - account.first + 1
    return Absence(
        "withheld",
        f"the agent withheld frames {account.first} to {account.last} ({length}): {counts}, by {where}",
        account,
    )


def _hours(topic: str) -> int:
    return TOPICS[topic].retention_ms // 3_600_000
