"""Batching of the frames of one partition, by pipeline and lane. Pure: it writes nothing, and the clock is passed in.

A batch closes when it has enough items or bytes, or when its first item has waited for the maximum delay. A frame of
several pipelines is finished when the last of its batches closes, and that batch finishes its offset. Within a
pipeline and lane, items keep the order of their offsets, whatever their outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.contract.codec import encode_batch, encode_part
from ingest.contract.headers import frame_headers
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import BatchItem, Canvas, Pixels
from ingest.kafka.log import Outgoing
from ingest.runtime.clock import Clock
from stream.prepare.plan import MAX_ITEMS_BYTES, PipelinePlan
from stream.runner.processor import Work


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One frame for one pipeline: its encoded item, and the pictures of its regions, ``(h, w, 3)`` uint8, contiguous.

    Every error that a frame can cause is raised while its entries are made. No later step of a batch can fail.
    """

    plan: PipelinePlan
    id: FrameId
    lane: str
    traceparent: str
    item: bytes
    pictures: tuple[Pixels, ...] = ()

    @classmethod
    def of(cls, plan: PipelinePlan, item: BatchItem, pictures: tuple[Pixels, ...] = ()) -> BatchEntry:
        """Encode an item into its entry. Raise Oversize when no batch could hold it, WrongType."""
        encoded = encode_part(item, MAX_ITEMS_BYTES)
        return cls(plan, item.id, item.lane, item.traceparent, encoded, pictures)


class Batcher:
    """The open batches of one partition. ``target`` is their output topic."""

    def __init__(self, target: str, partition: int, clock: Clock) -> None:
        self._target = target
        self._partition = partition
        self._clock = clock
        self._open: dict[tuple[str, str], _OpenBatch] = {}
        self._missing: dict[int, int] = {}  # offset → number of its batches that are still open

    @property
    def deadline(self) -> float | None:
        """Time when the first open batch must close, on the monotonic clock in seconds."""
        return min((b.deadline for b in self._open.values() if b.entries), default=None)

    def add(self, offset: int, entries: Sequence[BatchEntry]) -> list[Work]:
        """Add a frame to the batches of its pipelines, and return the batches that close, in order."""
        works = []
        self._missing[offset] = len(entries)
        for entry in entries:
            batch = self._batch_for(entry)
            if not batch.has_room_for(entry):
                works.append(self._close(batch))
                batch = self._batch_for(entry)
            batch.add(offset, entry, self._clock.monotonic())
            if batch.full:
                works.append(self._close(batch))
        return works

    def due(self) -> list[Work]:
        """Close the batches whose first item has waited for the maximum delay."""
        now = self._clock.monotonic()
        return [self._close(b) for b in list(self._open.values()) if b.entries and b.deadline <= now]

    def flush(self) -> list[Work]:
        """Close all batches."""
        return [self._close(b) for b in list(self._open.values()) if b.entries]

    def _batch_for(self, entry: BatchEntry) -> _OpenBatch:
        key = (entry.plan.name, entry.lane)
        if key not in self._open:
            self._open[key] = _OpenBatch(entry.plan)
        return self._open[key]

    def _close(self, batch: _OpenBatch) -> Work:
        first, plan = batch.entries[0], batch.plan
        if first.lane not in (LIVE, LATE):
            del self._open[plan.name, first.lane]  # replays end, and each has its own lane
        headers = frame_headers([entry.id for entry in batch.entries], first.lane, first.traceparent, plan.name)
        outgoing = Outgoing(self._target, self._partition, batch.encoded(), headers=headers)
        offsets = batch.take()
        return Work((outgoing,), tuple(offset for offset in offsets if self._is_last_of(offset)))

    def _is_last_of(self, offset: int) -> bool:
        self._missing[offset] -= 1
        if self._missing[offset]:
            return False
        del self._missing[offset]
        return True


class _OpenBatch:
    """The open batch of one pipeline and lane. It is refilled after each close."""

    def __init__(self, plan: PipelinePlan) -> None:
        self.plan = plan
        self.entries: list[BatchEntry] = []
        self.deadline = 0.0
        self._offsets: list[int] = []
        self._rows = 0
        self._items_bytes = 0

    @property
    def full(self) -> bool:
        return len(self.entries) >= self.plan.max_items or 0 < self.plan.rows <= self._rows

    def has_room_for(self, entry: BatchEntry) -> bool:
        rows, items_bytes = self._rows + len(entry.pictures), self._items_bytes + len(entry.item)
        return rows <= self.plan.rows and items_bytes <= MAX_ITEMS_BYTES

    def add(self, offset: int, entry: BatchEntry, now: float) -> None:
        if not self.entries:
            self.deadline = now + self.plan.max_delay_s
        self.entries.append(entry)
        self._offsets.append(offset)
        self._rows += len(entry.pictures)
        self._items_bytes += len(entry.item)

    def encoded(self) -> bytes:
        plan, pictures = self.plan, [picture for entry in self.entries for picture in entry.pictures]
        canvas = Canvas(plan.height, plan.width, plan.channels)
        return encode_batch(plan.name, canvas, [entry.item for entry in self.entries], pictures)

    def take(self) -> list[int]:
        """Return the offsets of the entries, and clear the batch."""
        offsets = self._offsets
        self.entries, self._offsets, self._rows, self._items_bytes = [], [], 0, 0
        return offsets
