"""Taking partitions over, in the order that makes it safe.

First the transactional ids, which aborts what the old owners left open and fences them; then the committed offsets,
which nobody else can move any more; then the marks, from what is committed. Partitions that come together share
their reading: both lanes' results lie in one partition, and the dead letters of all in one topic.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing

from engines.node.jobs import see
from engines.node.marks import HighWaterMarks
from engines.node.partition import GROUP, OwnedPartition
from ingest.contract import headers as h
from ingest.contract.topics import DEADLETTER, RESULTS
from ingest.kafka.log import Log, LogRecord, TopicPartition, Writer
from ingest.runtime import logs

_log = logs.get("engines.node.takeover")

RESULTS_TAIL = 20_000
"""How many results of a partition are read back for the marks. What prepare repeats after a crash is what it had not
committed, under a second's worth; what an agent repeats is what was in flight. At a hundred frames a second this is
more than three minutes."""
LETTERS_TAIL = 500
"""The same for dead letters, which hold pixels: half a megabyte each. A mark only rises, so that only letters after a
camera's last result matter; and a frame that is parked twice counts once."""


async def take_over(log: Log, tps: Sequence[TopicPartition]) -> list[OwnedPartition]:
    """Open the tps' writers, find their positions and read back their marks. Raise LogUnavailable.

    When it fails or is cancelled, what was opened is closed again.
    """
    writers: list[Writer] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_opened(log, tp, writers)) for tp in tps]
        positions = await _positions(log, tps)
        marks: dict[TopicPartition, HighWaterMarks] = {tp: HighWaterMarks() for tp in tps}
        await _from_results(log, marks)
        await _from_letters(log, marks)
    except BaseException as error:
        await asyncio.gather(*(writer.close() for writer in writers), return_exceptions=True)
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from error
        raise
    opened = [task.result() for task in tasks]
    return [OwnedPartition(s, w, marks[s], positions[s]) for s, w in zip(tps, opened, strict=True)]


async def _opened(log: Log, tp: TopicPartition, writers: list[Writer]) -> Writer:
    writer = await log.writer(f"engines-{tp.topic}-{tp.partition}")
    writers.append(writer)
    return writer


async def _positions(log: Log, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    beginnings = {topic: await log.beginnings(topic) for topic in {tp.topic for tp in tps}}
    positions = {}
    for tp in tps:
        committed, first = await log.committed(GROUP, tp), beginnings[tp.topic][tp.partition]
        if committed is not None and committed < first:
            # Their frames have no end; the audit names them. Replaying them is a decision, not a reflex.
            _log.error("retention took batches before they were read", tp=str(tp), batches=first - committed)
        positions[tp] = max(first, committed or 0)
    return positions


async def _from_results(log: Log, marks: Mapping[TopicPartition, HighWaterMarks]) -> None:
    wanted: dict[int, list[HighWaterMarks]] = defaultdict(list)
    for tp, own in marks.items():
        wanted[tp.partition].append(own)
    ends, beginnings = await log.settled_ends(RESULTS, sorted(wanted)), await log.beginnings(RESULTS)
    for partition, shared in wanted.items():
        begin = max(beginnings[partition], ends[partition] - RESULTS_TAIL)
        async with aclosing(log.read(RESULTS, partition, begin, ends[partition])) as records:
            async for record in records:
                for own in shared:
                    see(record, own)


async def _from_letters(log: Log, marks: Mapping[TopicPartition, HighWaterMarks]) -> None:
    end, begin = (await log.settled_ends(DEADLETTER, [0]))[0], (await log.beginnings(DEADLETTER))[0]
    async with aclosing(log.read(DEADLETTER, 0, max(begin, end - LETTERS_TAIL), end)) as records:
        async for record in records:
            source = _source(record)
            if source is not None and source in marks:
                see(record, marks[source])


def _source(letter: LogRecord) -> TopicPartition | None:
    failure = h.read_failure(letter.headers)
    return TopicPartition(failure.topic, failure.partition) if failure else None
