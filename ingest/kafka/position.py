"""The offset at which a consumer group begins to read a partition, and reports of records that expired unread.

Retention may delete records before a group has read them. Before a service skips deleted records, the service reports
their offsets on ``status``. Without the report on ``status``, ``sightline audit`` would say "balanced" although
records were lost. If a topic was deleted and created again, the new topic begins at offset 0. An offset that was
committed for the old topic would skip the first records of the new topic.
"""

from __future__ import annotations

from typing import NamedTuple

from ingest.contract.codec import encode
from ingest.contract.groups import READERS
from ingest.contract.records import ExpiredUnread, Heartbeat
from ingest.contract.topics import STATUS
from ingest.kafka.log import Log, Outgoing, TopicPartition
from ingest.runtime import logs
from ingest.runtime.clock import SystemClock
from ingest.runtime.heartbeat import instance_name

_log = logs.get("ingest.position")


BEYOND_EVERY_END = 2**62
"""Offset higher than the end of any partition. If a group commits ``BEYOND_EVERY_END``, the next reader of the
partition starts at the partition's beginning."""


class StartPosition(NamedTuple):
    """The next offset that a group reads, and the number of records that expired before the group read them.

    ``recreated`` is true if the topic was deleted and created again, so that the group starts at the partition's
    beginning.
    """

    offset: int
    expired_unread: int = 0
    recreated: bool = False


async def start_position(log: Log, group: str, tp: TopicPartition) -> StartPosition:
    """Return where a group starts to read: at its committed offset, or at the beginning if it has not committed.

    Raise LogUnavailable. If several groups may process the topic (``READERS``), the highest of their committed
    offsets counts, so that one group continues where another stopped. Records that retention deleted before the group
    read them are logged and reported on ``status``. A group without a committed offset is new, so deleted records do
    not count as missed. A committed offset beyond the end belongs to a deleted topic with the same name, so the group
    starts at the beginning.
    """
    groups = sorted({group, *READERS.get(tp.topic, ())})
    commits = [offset for each in groups if (offset := await log.committed(each, tp)) is not None]
    first = (await log.beginnings(tp.topic))[tp.partition]
    if not commits:
        return StartPosition(first)
    committed = max(commits)
    end = (await log.ends(tp.topic))[tp.partition]
    if committed > end:  # unless an open transaction holds the end back
        end = (await log.settled_ends(tp.topic, [tp.partition]))[tp.partition]
    if committed > end:
        fields = {"group": group, "topic": tp.topic, "partition": tp.partition}
        _log.warning("topic_created_again", **fields, committed=committed, end=end, start=first)
        for each in groups:
            await commit(log, each, tp, first)
        return StartPosition(first, recreated=True)
    if committed < first:
        await report_expired(log, group, tp, committed, first)
        return StartPosition(first, first - committed)
    return StartPosition(committed)


async def commit(log: Log, group: str, tp: TopicPartition, position: int) -> None:
    """Commit an offset for a group, even an offset lower than the group's committed offset.

    Running members never commit a lower offset. Raise LogUnavailable.
    """
    writer = await log.writer(f"{group}-restart-{tp.topic}-{tp.partition}")
    try:
        await writer.write((), group, {tp: position})
    finally:
        await writer.close()


async def expired_between(log: Log, group: str, tp: TopicPartition, expected: int, found: int) -> int:
    """Report and count the records that retention deleted between two reads of a group. Raise LogUnavailable.

    ``expected`` is the next offset of the group, and ``found`` the offset of the next record that was read. Missing
    offsets that retention did not delete belong to transaction markers, and are not reported.
    """
    first = min(found, (await log.beginnings(tp.topic))[tp.partition])
    if first <= expected:
        return 0
    await report_expired(log, group, tp, expected, first)
    return first - expected


async def report_expired(log: Log, group: str, tp: TopicPartition, first: int, stop: int) -> None:
    """Log that the offsets ``first`` to ``stop - 1`` expired unread, and report these offsets on ``status``."""
    gap = ExpiredUnread(group=group, topic=tp.topic, partition=tp.partition, first=first, last=stop - 1)
    _log.error("records_expired_unread", **gap.model_dump(), records=stop - first)
    beat = Heartbeat(
        service=group, instance=instance_name(), at_ns=SystemClock().now_ns(), state="starting", expired_unread=(gap,)
    )
    await log.produce(Outgoing(STATUS, 0, encode(beat), key=beat.instance.encode()))
