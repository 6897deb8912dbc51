"""Batch the frames of one partition by pipeline and by lane (live, late or replayed).

Pure: this module writes nothing, and gets the clock as a parameter.

A batch closes when it has enough items or bytes, or when its first item has waited for the maximum delay. A frame
that several pipelines examine is in one batch per pipeline. A frame's offset is finished when the last batch that
contains the frame closes. Within a pipeline and lane, all items (to classify, shed or empty) stay in the order of
their offsets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingest.contract.codec import HEAD_BYTES, MAX_RECORD_BYTES, encode_batch, encode_part
from ingest.contract.headers import frame_headers
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import BatchItem, Canvas, Pixels, Preparation
from ingest.kafka.log import Outgoing
from ingest.runtime.clock import Clock
from ingest.site import PipelineConfig
from ingest.site.pipeline import MAX_PIXEL_BYTES, UNROUTED_NAME
from stream.runner.processor import Work

MAX_ITEMS_BYTES = MAX_RECORD_BYTES - MAX_PIXEL_BYTES - HEAD_BYTES
"""Maximum bytes of the items in a batch, without their pixels. Items are usually small, but their size has no bound:
an item names all pipelines of its frame, and a site may have any number of pipelines."""
CHANNELS = 3
UNROUTED_ITEMS = 64
"""Maximum number of items in a batch of frames that no pipeline wants."""
UNROUTED_DELAY_S = 0.05
"""Maximum time in seconds for which a batch of frames that no pipeline wants stays open."""


@dataclass(frozen=True, slots=True)
class PipelinePlan:
    """The limits of the batches of one pipeline.

    ``rows`` is the maximum number of pictures of ``(height, width, channels)`` in a batch. ``regions`` is the maximum
    number of pictures from one frame. ``max_bytes`` is the maximum size of all pictures and attached frames in a
    batch; a batch of one frame may be larger. ``config`` is None for frames that no pipeline wants.
    """

    name: str
    height: int
    width: int
    channels: int
    max_items: int
    max_delay_s: float
    rows: int
    regions: int
    max_bytes: int
    config: PipelineConfig | None


UNROUTED = PipelinePlan(UNROUTED_NAME, 0, 0, 0, UNROUTED_ITEMS, UNROUTED_DELAY_S, 0, 0, 0, None)
"""Limits of the batches of frames that no pipeline wants. A frame that no pipeline wants becomes an item without
pixels, so that the ledger records the frame's outcome."""


def plans(pipelines: Iterable[PipelineConfig]) -> tuple[PipelinePlan, ...]:
    """Return the batch limits of each pipeline."""
    return tuple(map(_plan, pipelines))


def _plan(config: PipelineConfig) -> PipelinePlan:
    row_bytes = config.height * config.width * CHANNELS
    max_bytes = min(config.max_bytes, MAX_PIXEL_BYTES)
    fit = max(1, max_bytes // row_bytes)
    regions = 1 if config.regions == "full" else min(config.max_regions, fit)
    return PipelinePlan(
        name=config.name,
        height=config.height,
        width=config.width,
        channels=CHANNELS,
        max_items=config.max_items,
        max_delay_s=config.max_delay_s,
        rows=min(fit, config.max_items * regions),
        regions=regions,
        max_bytes=max(max_bytes, row_bytes),
        config=config,
    )


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One frame for one pipeline: the encoded batch item, with either the cropped regions or the encoded frame.

    ``rows`` is the number of regions. ``pictures`` are the pictures of the regions as contiguous uint8 arrays
    ``(h, w, 3)``; there are none if the item is not cropped. ``frame`` is the encoded frame that is attached to the
    item, empty for an item without an attached frame.

    Every error that a frame can cause is raised while the frame's entries are created, so that closing a batch cannot
    fail.
    """

    plan: PipelinePlan
    id: FrameId
    lane: str
    traceparent: str
    item: bytes
    rows: int
    pictures: tuple[Pixels, ...] = ()
    frame: bytes = b""

    @property
    def payload_bytes(self) -> int:
        """Size of the cropped pictures and of the encoded frame in bytes, whichever of them the batch item has."""
        return sum(picture.nbytes for picture in self.pictures) + len(self.frame)

    @classmethod
    def of(
        cls, plan: PipelinePlan, item: BatchItem, pictures: tuple[Pixels, ...] = (), frame: bytes = b""
    ) -> BatchEntry:
        """Encode an item, and return its entry.

        Raise Oversize if no batch can hold the item, WrongType if a field cannot be encoded.
        """
        encoded = encode_part(item, MAX_ITEMS_BYTES)
        return cls(plan, item.id, item.lane, item.traceparent, encoded, len(item.regions), pictures, frame)


class Batcher:
    """The open batches of one partition. Batches are written to the topic ``target``."""

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
            if batch.entries and (batch.plan != entry.plan or not batch.has_room_for(entry)):
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
        found = self._open.get(key)
        if found is None or (not found.entries and found.plan != entry.plan):
            found = self._open[key] = _OpenBatch(entry.plan)
        return found

    def _close(self, batch: _OpenBatch) -> Work:
        first, plan = batch.entries[0], batch.plan
        if first.lane not in (LIVE, LATE):
            del self._open[plan.name, first.lane]  # each replay has its own lane, and ends
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
    """The open batch of one pipeline and lane. After the batch closes, this object holds the next batch of the
    pipeline and lane."""

    def __init__(self, plan: PipelinePlan) -> None:
        self.plan = plan
        self.entries: list[BatchEntry] = []
        self.deadline = 0.0
        self._offsets: list[int] = []
        self._rows = 0
        self._items_bytes = 0
        self._payload_bytes = 0

    @property
    def full(self) -> bool:
        return len(self.entries) >= self.plan.max_items or 0 < self.plan.rows <= self._rows

    def has_room_for(self, entry: BatchEntry) -> bool:
        rows, items_bytes = self._rows + entry.rows, self._items_bytes + len(entry.item)
        payload_bytes = self._payload_bytes + entry.payload_bytes
        fits = items_bytes <= MAX_ITEMS_BYTES and payload_bytes <= self.plan.max_bytes
        return fits and rows <= self.plan.rows

    def add(self, offset: int, entry: BatchEntry, now: float) -> None:
        if not self.entries:
            self.deadline = now + self.plan.max_delay_s
        self.entries.append(entry)
        self._offsets.append(offset)
        self._rows += entry.rows
        self._items_bytes += len(entry.item)
        self._payload_bytes += entry.payload_bytes

    def encoded(self) -> bytes:
        plan, pictures = self.plan, [picture for entry in self.entries for picture in entry.pictures]
        canvas, config = Canvas(plan.height, plan.width, plan.channels), plan.config
        preparation = Preparation(canvas, config.colour, config.fit) if config else Preparation(canvas)
        items, frames = [entry.item for entry in self.entries], [entry.frame for entry in self.entries]
        return encode_batch(plan.name, preparation, items, pictures, frames)

    def take(self) -> list[int]:
        """Return the offsets of the frames in the batch, and make the batch empty."""
        offsets = self._offsets
        self.entries, self._offsets = [], []
        self._rows = self._items_bytes = self._payload_bytes = 0
        return offsets
