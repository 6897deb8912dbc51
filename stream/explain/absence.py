"""Reasons why the log has no record of a frame: withheld, in a spool, not captured, or deleted by retention."""

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
from stream.exceptions import FrameNotFound
from stream.explain.search import MAX_RECORDS, first_from, place_in
from stream.readback import backwards

UNREPORTED = "unreported"
"""State of a captured frame about which no record says whether it was delivered or withheld."""


@dataclass(frozen=True, slots=True)
class Absence:
    """The state of a frame without a readable record, and the reason in words.

    The state is ``withheld``, ``spooled``, ``unclean``, ``unreported``, ``unreadable`` or ``expired``. ``account`` is
    the interval of withheld frames that contains the explained frame.
    """

    state: str
    reason: str
    account: WithheldInterval | None = None


async def absence_of(log: Log, frame: FrameId, partition: int, known: bool) -> Absence:
    """Return why the log has neither a record nor a result of a frame.

    ``known`` tells whether the configuration has the camera. Raise FrameNotFound if the camera is unknown, if
    retention has deleted the frame, or if no agent has reported it. Raise LogUnavailable.
    """
    place_of = place_in(frame.camera)
    for topic in (FRAMES, FRAMES_LATE):
        after = await first_from(log, TopicPartition(topic, partition), (frame.epoch, frame.seq), place_of)
        account = _account_before(after, frame)
        if after and account:
            return _withheld(account, f"the record of the next frame, {topic}[{partition}]@{after.offset}")
    reported = await _reported(log, frame)
    if reported and reported.state != UNREPORTED:
        return reported
    oldest, deleted = await _oldest(log, frame.camera, partition)
    if not oldest and not known and not reported:
        raise FrameNotFound(
            f"camera {frame.camera}: neither the log nor the configuration has this camera. "
            "`sightline config show` prints the cameras"
        )
    if deleted and (oldest is None or (frame.epoch, frame.seq) < (oldest.epoch, oldest.seq)):
        since = f"begins with {oldest}" if oldest else "has no frame of this camera any more"
        raise FrameNotFound(
            f"frame {frame} has expired: the topic frames keeps {_hours(FRAMES)} hours, and {since}. "
            f"Results are kept for {_hours(RESULTS)} hours, but none is left of this frame"
        )
    if reported:
        return reported
    expected = f"a frame from {oldest} on" if oldest else "a camera that has sent a frame"
    raise FrameNotFound(f"frame {frame}: no record, and no agent has reported it: expected {expected}")


async def _oldest(log: Log, camera: str, partition: int) -> tuple[FrameId | None, bool]:
    """Return the oldest frame of a camera in the log, and whether retention has deleted frames of its partition."""
    found: list[FrameId] = []
    deleted = False
    for topic in (FRAMES, FRAMES_LATE):
        deleted |= (await log.beginnings(topic))[partition] > 0
        first = await first_from(log, TopicPartition(topic, partition), (0, 0), place_in(camera))
        found += [one for one in h.frames_of(first.headers) if one.camera == camera] if first else []
    return min(found, default=None), deleted


async def expired(log: Log, source: FrameRef) -> Absence:
    """Return why a frame that has results has no frame record."""
    begins = (await log.beginnings(source.topic)).get(source.partition, 0)
    position = f"{source.topic}[{source.partition}]@{source.offset}"
    if source.offset < begins:
        return Absence(
            "expired", f"retention has deleted {position}: {source.topic} keeps {_hours(source.topic)} hours"
        )
    return Absence("unreadable", f"the record {position} does not name this frame")


async def _reported(log: Log, frame: FrameId) -> Absence | None:
    """Return the state of a frame in the heartbeats of agents, the newest heartbeat first.

    The search ends at a heartbeat that was written before the frame was captured.
    """
    tp, found, agents = TopicPartition(STATUS, 0), None, set[str]()
    end = (await log.ends(STATUS))[0]
    async with aclosing(backwards(log, tp, end, MAX_RECORDS)) as chunks:
        async for chunk in chunks:
            for record in reversed(chunk):
                beat = _heartbeat(record, frame.camera)
                if beat is None:
                    continue
                state = _in_heartbeat(beat, frame, newest=beat.instance not in agents)
                if state and state.state != UNREPORTED:
                    return state
                found = found or state
                if beat.waiting is not None:
                    agents.add(beat.instance)
                own = [one for one in beat.cameras if (one.camera, one.epoch) == (frame.camera, frame.epoch)]
                if any(one.captured <= frame.seq for one in own):
                    return found
    return found


def _heartbeat(record: LogRecord, camera: str) -> Heartbeat | None:
    """Return a heartbeat that names a camera."""
    try:
        return decode(Heartbeat, record.value) if camera.encode() in record.value else None
    except CodecError:
        return None


def _in_heartbeat(beat: Heartbeat, frame: FrameId, *, newest: bool) -> Absence | None:
    """Return the state of a frame in one heartbeat.

    ``newest`` is true if no newer heartbeat of the agent reports its spool. The spool report of an older heartbeat is
    ignored as outdated.
    """
    own = (frame.camera, frame.epoch)
    for account in beat.accounts:
        if (account.camera, account.epoch) == own and account.first <= frame.seq <= account.last:
            return _withheld(account, f"a heartbeat of {beat.instance}")
    for one in (beat.waiting if newest else None) or ():
        if (one.camera, one.epoch) == own and one.first <= frame.seq <= one.last:
            return Absence("spooled", f"the spool of {beat.instance} holds frames {one.first} to {one.last}")
    for end in beat.ended:
        if (end.camera, end.epoch) == own and not end.clean and end.last < frame.seq <= end.reported:
            return Absence("unclean", f"the capture was killed after frame {end.last}, before this frame was stored")
    if any((one.camera, one.epoch) == own and frame.seq < one.captured for one in beat.cameras):
        return Absence(
            UNREPORTED,
            "captured, but neither delivered nor reported as withheld yet. The record of the camera's next frame, or "
            "the end of its capture, reports it",
        )
    return None


def _account_before(after: LogRecord | None, frame: FrameId) -> WithheldInterval | None:
    """Return the interval of withheld frames before the next delivered frame, if the interval contains ``frame``."""
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
