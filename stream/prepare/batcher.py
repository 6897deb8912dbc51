"""Gathers frames of one partition into batches, by pipeline and lane. Pure: it writes nothing and is told the time.

A batch is closed when it has enough items or bytes, or when its first item has waited long enough. A frame that goes
to several pipelines is done with when the last of its batches is closed, so its offset is named there. Per pipeline
and lane, items are in the order of their offsets, whatever their outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ingest.clock import Clock
from ingest.codec import encode
from ingest.headers import frame_headers
from ingest.identity import LATE, LIVE
from ingest.log import Outgoing
from ingest.records import Batch, BatchItem, Pixels
from ingest.site import PipelineConfig
from stream.prepare.plan import Plan
from stream.prepare.regions import Window, draw
from stream.runner.processor import Work

__all__ = ["Batcher", "Entry"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One frame for one pipeline. ``image`` is ``(H, W, 3)`` uint8, BGR; None without windows."""

    plan: Plan
    item: BatchItem
    windows: tuple[Window, ...] = ()
    image: Pixels | None = None


class Batcher:
    """One partition's open batches. ``target`` is the topic that they will go to."""

    def __init__(self, target: str, partition: int, clock: Clock) -> None:
        self._target = target
        self._partition = partition
        self._clock = clock
        self._open: dict[tuple[str, str], _Open] = {}
        self._missing: dict[int, int] = {}  # offset → batches that it is in and that are not closed yet

    @property
    def deadline(self) -> float | None:
        """When the first open batch must be closed, on the monotonic clock in seconds."""
        return min((b.deadline for b in self._open.values() if b.items), default=None)

    def add(self, offset: int, entries: Sequence[Entry]) -> list[Work]:
        """Put a frame into the batches of its pipelines, and return those that are closed by it, in order."""
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
        """Close the batches whose first item has waited long enough."""
        now = self._clock.monotonic()
        return [self._close(b) for b in list(self._open.values()) if b.items and b.deadline <= now]

    def flush(self) -> list[Work]:
        """Close all batches."""
        return [self._close(b) for b in list(self._open.values()) if b.items]

    def _batch_for(self, entry: Entry) -> _Open:
        key = (entry.plan.name, entry.item.lane)
        if key not in self._open:
            self._open[key] = _Open(entry.plan, entry.item.lane)
        return self._open[key]

    def _close(self, batch: _Open) -> Work:
        record, offsets = batch.take()
        if batch.lane not in (LIVE, LATE):
            del self._open[batch.plan.name, batch.lane]  # a replay comes to an end; its memory need not stay
        headers = frame_headers(
            [item.id for item in record.items], batch.lane, record.items[0].traceparent, record.pipeline
        )
        outgoing = Outgoing(self._target, self._partition, encode(record), headers=headers)
        return Work((outgoing,), tuple(offset for offset in offsets if self._is_last_of(offset)))

    def _is_last_of(self, offset: int) -> bool:
        self._missing[offset] -= 1
        if self._missing[offset]:
            return False
        del self._missing[offset]
        return True


class _Open:
    """A batch that is being filled, over and over: rows are drawn straight into the memory it keeps."""

    def __init__(self, plan: Plan, lane: str) -> None:
        self.plan = plan
        self.lane = lane
        self.items: list[BatchItem] = []
        self.deadline = 0.0
        self._offsets: list[int] = []
        self._rows = 0
        self._used_bytes = 0
        self._pixels: Pixels | None = None

    @property
    def full(self) -> bool:
        return len(self.items) >= self.plan.max_items or 0 < self.plan.rows <= self._rows

    def has_room_for(self, entry: Entry) -> bool:
        return self._rows + len(entry.windows) <= self.plan.rows

    def add(self, offset: int, entry: Entry, now: float) -> None:
        if not self.items:
            self.deadline = now + self.plan.max_delay_s
        if entry.image is not None and self.plan.config is not None:
            self._draw(self.plan.config, entry.windows, entry.image)
        self.items.append(entry.item)
        self._offsets.append(offset)

    def take(self) -> tuple[Batch, list[int]]:
        plan = self.plan
        pixels = b"" if self._pixels is None else self._pixels[: self._used_bytes].tobytes()
        batch = Batch(
            pipeline=plan.name,
            height=plan.height,
            width=plan.width,
            channels=plan.channels,
            items=tuple(self.items),
            pixels=pixels,
        )
        offsets = self._offsets
        self.items, self._offsets, self._rows, self._used_bytes = [], [], 0, 0
        return batch, offsets

    def _draw(self, config: PipelineConfig, parts: tuple[Window, ...], image: Pixels) -> None:
        plan = self.plan
        if self._pixels is None:
            self._pixels = np.empty(plan.rows * plan.height * plan.width * plan.channels, np.uint8)
        for window in parts:
            left, top, right, bottom = window.region.inner
            end = self._used_bytes + window.region.inner.area * plan.channels
            target = self._pixels[self._used_bytes : end].reshape(bottom - top, right - left, plan.channels)
            draw(config, image, window, target)
            self._rows, self._used_bytes = self._rows + 1, end
