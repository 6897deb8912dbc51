"""The position at which a consumer group begins a partition, and the records that the group will never read.

Retention may delete records before a group has read them. The service that skips the deleted records first reports
the gap on ``status``. Without this report, ``sightline audit`` would say "balanced" although records were lost. A
topic that was deleted and created again begins at 0, so a committed offset of the old topic would skip its first
records.
"""

from __future__ import annotations

from typing import NamedTuple

from ingest.contract.codec import encode
from ingest.contract.records import ExpiredUnread, Heartbeat
from ingest.contract.topics import STATUS
from ingest.kafka.log import Log, Outgoing, TopicPartition
from ingest.runtime import logs
from ingest.runtime.clock import SystemClock
from ingest.runtime.heartbeat import instance_name

_log = logs.get("ingest.position")


BEYOND_EVERY_END = 2**62
"""Offset that no topic reaches. When this offset is committed, the next owner of the partition begins at the topic's
beginning."""


class StartPosition(NamedTuple):
    """The next offset to read, and the number of records that retention deleted before the group read them.

    ``recreated`` is true if the topic was deleted and created again: the group then starts at the topic's beginning.
    """

    offset: int
    expired_unread: int = 0
    recreated: bool = False


async def start_position(log: Log, group: str, tp: TopicPartition) -> StartPosition:
    """Return the committed offset of a group, the beginning without a commit. Raise LogUnavailable.

    Records that expired unread are logged and reported on ``status``. A group without a commit is new, so no deleted
    record counts as missed. A commit beyond the end belongs to an earlier topic of this name: the group starts at the
    beginning.
    """
    committed = await log.committed(group, tp)
    first = (await log.beginnings(tp.topic))[tp.partition]
    if committed is None:
        return StartPosition(first)
    end = (await log.ends(tp.topic))[tp.partition]
    if committed > end:  # unless an open transaction holds the end back
        end = (await log.settled_ends(tp.topic, [tp.partition]))[tp.partition]
    if committed > end:
        fields = {"group": group, "topic": tp.topic, "partition": tp.partition}
        _log.warning("topic_created_again", **fields, committed=committed, end=end, start=first)
        await commit(log, group, tp, first)
        return StartPosition(first, recreated=True)
    if committed < first:
        await report_expired(log, group, tp, committed, first)
        return StartPosition(first, first - committed)
    return StartPosition(committed)


async def commit(log: Log, group: str, tp: TopicPartition, position: int) -> None:
    """Commit a position, which may be below the committed position. A group member itself never goes back.

    Raise LogUnavailable.
    """
    writer = await log.writer(f"{group}-restart-{tp.topic}-{tp.partition}")
    try:
        await writer.write((), group, {tp: position})
    finally:
        await writer.close()


async def expired_between(log: Log, group: str, tp: TopicPartition, expected: int, found: int) -> int:
    """Report the records that retention deleted between two reads, and return their number. Raise LogUnavailable.

    ``expected`` is the next offset of the group, and ``found`` the offset of the next record that was read. Gaps that
    retention did not cause are transaction markers.
    """
    first = min(found, (await log.beginnings(tp.topic))[tp.partition])
    if first <= expected:
        return 0
    await report_expired(log, group, tp, expected, first)
    return first - expected


async def report_expired(log: Log, group: str, tp: TopicPartition, first: int, stop: int) -> None:
    """Log that the records from ``first`` to ``stop - 1`` expired unread, and report the loss on ``status``."""
    gap = ExpiredUnread(group=group, topic=tp.topic, partition=tp.partition, first=first, last=stop - 1)
    _log.error("records_expired_unread", **gap.model_dump(), records=stop - first)
    beat = Heartbeat(
        service=group, instance=instance_name(), at_ns=SystemClock().now_ns(), state="starting", expired_unread=(gap,)
    )
    await log.produce(Outgoing(STATUS, 0, encode(beat), key=beat.instance.encode()))
