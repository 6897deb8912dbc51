"""Notes about the records of a topic that were written in a moving period. Each record is read once."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Generic, TypeVar

from ingest.kafka.log import Log, LogRecord, TopicPartition

Note = TypeVar("Note")
SECOND_MS = 1000


class RecentNotes(Generic[Note]):
    """The notes about a topic's records, counted by second, so that a busy topic takes no more memory. ``note``
    returns the notes about one record. Periods begin at whole seconds."""

    def __init__(self, log: Log, topic: str, note: Callable[[LogRecord], Iterable[Note]]) -> None:
        self._log, self._topic, self._note = log, topic, note
        self._notes: defaultdict[int, deque[tuple[int, Counter[Note]]]] = defaultdict(deque)
        """Second of writing, as Unix time in ms, and number of each note, in the order of the log, by partition."""
        self._positions: dict[int, int] = {}

    async def between(self, begin_ms: int, end_ms: int) -> Counter[Note]:
        """Return the number of each note about the records that were written in a period.

        Read the records that earlier calls have not read, and forget the records from before the period. Neither
        ``begin_ms`` nor ``end_ms`` may decrease from call to call. Raise LogUnavailable.
        """
        await self.read(begin_ms, end_ms)
        for notes in self._notes.values():
            while notes and notes[0][0] < begin_ms:
                notes.popleft()
        return self.counts(begin_ms)

    async def read(self, begin_ms: int, end_ms: int) -> None:
        """Read the records of a period that earlier calls have not read. Raise LogUnavailable."""
        for partition, end in (await self._log.ends(self._topic)).items():
            tp = TopicPartition(self._topic, partition)
            if partition not in self._positions:
                self._positions[partition] = min(await self._log.offset_at(tp, begin_ms), end)
            start, stop = self._positions[partition], min(await self._log.offset_at(tp, end_ms), end)
            if stop <= start:
                continue
            async with aclosing(self._log.read(*tp, start, stop)) as records:
                async for record in records:
                    self._add(self._notes[partition], record)
                    self._positions[partition] = record.offset + 1
            self._positions[partition] = stop

    def _add(self, notes: deque[tuple[int, Counter[Note]]], record: LogRecord) -> None:
        second_ms = record.timestamp_ms // SECOND_MS * SECOND_MS
        if found := list(self._note(record)):
            if not notes or notes[-1][0] != second_ms:
                notes.append((second_ms, Counter()))
            notes[-1][1].update(found)

    def counts(self, begin_ms: int) -> Counter[Note]:
        """Return the number of each note about the read records that were written at or after ``begin_ms``."""
        total: Counter[Note] = Counter()
        for notes in self._notes.values():
            for second_ms, found in notes:
                if second_ms >= begin_ms:
                    total.update(found)
        return total
