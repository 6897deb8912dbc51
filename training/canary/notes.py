"""Notes about the records of a topic that were written in a moving period. Each record is read once."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Generic, TypeVar

from ingest.kafka.log import Log, LogRecord, TopicPartition

Note = TypeVar("Note")


class RecentNotes(Generic[Note]):
    """The notes about a topic's records. ``note`` returns the notes about one record."""

    def __init__(self, log: Log, topic: str, note: Callable[[LogRecord], Iterable[Note]]) -> None:
        self._log, self._topic, self._note = log, topic, note
        self._notes: defaultdict[int, deque[tuple[int, Note]]] = defaultdict(deque)
        """Time of writing in Unix ms and note, in order of time, by partition."""
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
                    self._notes[partition] += [(record.timestamp_ms, note) for note in self._note(record)]
                    self._positions[partition] = record.offset + 1
            self._positions[partition] = stop

    def counts(self, begin_ms: int) -> Counter[Note]:
        """Return the number of each note about the read records that were written at or after ``begin_ms``."""
        return Counter(note for notes in self._notes.values() for written_ms, note in notes if written_ms >= begin_ms)
