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

from engines.jobs import see
from engines.marks import Marks
from engines.slots import GROUP, OwnedSlot
from ingest import headers as h
from ingest import logs
from ingest.log import Log, LogRecord, Slot, Writer
from ingest.topics import DEADLETTER, RESULTS

__all__ = ["LETTERS_TAIL", "RESULTS_TAIL", "take_over"]

_log = logs.get("engines.takeover")

RESULTS_TAIL = 20_000
"""How many results of a partition are read back for the marks. What prepare repeats after a crash is what it had not
committed, under a second's worth; what an agent repeats is what was in flight. At a hundred frames a second this is
more than three minutes."""
LETTERS_TAIL = 500
"""The same for dead letters, which hold pixels: half a megabyte each. A mark only rises, so that only letters after a
camera's last result matter; and a frame that is parked twice counts once."""


async def take_over(log: Log, slots: Sequence[Slot]) -> list[OwnedSlot]:
    """Open the slots' writers, find their positions and read back their marks. Raise LogUnavailable.

    When it fails or is cancelled, what was opened is closed again.
    """
    writers: list[Writer] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_opened(log, slot, writers)) for slot in slots]
        positions = await _positions(log, slots)
        marks: dict[Slot, Marks] = {slot: Marks() for slot in slots}
        await _from_results(log, marks)
        await _from_letters(log, marks)
    except BaseException as error:
        await asyncio.gather(*(writer.close() for writer in writers), return_exceptions=True)
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from error
        raise
    opened = [task.result() for task in tasks]
    return [OwnedSlot(s, w, marks[s], positions[s]) for s, w in zip(slots, opened, strict=True)]


async def _opened(log: Log, slot: Slot, writers: list[Writer]) -> Writer:
    writer = await log.writer(f"engines-{slot.topic}-{slot.partition}")
    writers.append(writer)
    return writer


async def _positions(log: Log, slots: Iterable[Slot]) -> dict[Slot, int]:
    beginnings = {topic: await log.beginnings(topic) for topic in {slot.topic for slot in slots}}
    positions = {}
    for slot in slots:
        committed, first = await log.committed(GROUP, slot), beginnings[slot.topic][slot.partition]
        if committed is not None and committed < first:
            # Their frames have no end; the audit names them. Replaying them is a decision, not a reflex.
            _log.error("retention took batches before they were read", slot=str(slot), batches=first - committed)
        positions[slot] = max(first, committed or 0)
    return positions


async def _from_results(log: Log, marks: Mapping[Slot, Marks]) -> None:
    wanted: dict[int, list[Marks]] = defaultdict(list)
    for slot, own in marks.items():
        wanted[slot.partition].append(own)
    ends, beginnings = await log.settled_ends(RESULTS, sorted(wanted)), await log.beginnings(RESULTS)
    for partition, shared in wanted.items():
        begin = max(beginnings[partition], ends[partition] - RESULTS_TAIL)
        async with aclosing(log.read(RESULTS, partition, begin, ends[partition])) as records:
            async for record in records:
                for own in shared:
                    see(record, own)


async def _from_letters(log: Log, marks: Mapping[Slot, Marks]) -> None:
    end, begin = (await log.settled_ends(DEADLETTER, [0]))[0], (await log.beginnings(DEADLETTER))[0]
    async with aclosing(log.read(DEADLETTER, 0, max(begin, end - LETTERS_TAIL), end)) as records:
        async for record in records:
            source = _source(record)
            if source is not None and source in marks:
                see(record, marks[source])


def _source(letter: LogRecord) -> Slot | None:
    failure = h.read_failure(letter.headers)
    return Slot(failure.topic, failure.partition) if failure else None
