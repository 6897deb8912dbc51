"""What goes into one request to a gateway. Pure but for the futures."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.send.link import OutboundRecord

MAX_BATCH_RECORDS = 64
MAX_BATCH_BYTES = 512 * 1024
"""Two seconds of a 2 Mbit/s uplink: a request that is broken off costs no more. One record may be larger."""
MIN_BATCH_BYTES = 16 * 1024
"""A batch that is not answered twice is halved down to this, until one is: the sender waits 20 s, and at 100 kbit/s a
whole one takes twice as long."""
MORE_BATCH_BYTES = 4 * 1024
"""What an answer adds to the next batch: whatever a link cannot take is not tried at every turn."""


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """A parcel, and whoever waits for what becomes of it."""

    parcel: OutboundRecord
    done: asyncio.Future[None]

    def succeed(self) -> None:
        """Say that the log has it."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """Say why it was not taken."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass
class BatchSize:
    """How many ``bytes`` the batches of one lane may have: what its link takes, as far as answers have told."""

    bytes: int = MAX_BATCH_BYTES
    _silent: int = 0
    _silences: int = 0

    def answered(self, size: int) -> None:
        """Note that a batch of so many bytes was answered. A heartbeat that gets through says nothing of a batch."""
        if 2 * size > self.bytes:
            self._silences = 0
            self.bytes = min(MAX_BATCH_BYTES, self.bytes + MORE_BATCH_BYTES)

    def unanswered(self, size: int) -> None:
        """Note that one was not."""
        self._silent = max(self._silent, size)

    def begin(self) -> None:
        """Halve what was not answered twice, on a new connection. The first repeat is whole: its key is known."""
        silent, self._silent = self._silent, 0
        if silent > MIN_BATCH_BYTES:
            self._silences += 1
            if self._silences > 1:
                self.bytes = max(MIN_BATCH_BYTES, min(self.bytes, silent) // 2)


def batch_of(queue: deque[QueuedRecord], max_bytes: int = MAX_BATCH_BYTES) -> list[QueuedRecord]:
    """Take the next batch out of a queue, in order: at least one record, and no more bytes than that with others."""
    batch = [queue.popleft()]
    size = batch[0].parcel.size
    while queue and len(batch) < MAX_BATCH_RECORDS and size + queue[0].parcel.size <= max_bytes:
        batch.append(queue.popleft())
        size += batch[-1].parcel.size
    return batch


def idempotency_key(agent: str, parcels: Sequence[OutboundRecord]) -> str:
    """Return what a repeat of this batch has, and no other: the agent, its first row, and a digest of all of it."""
    digest = 0
    for parcel in parcels:
        digest = zlib.crc32(parcel.digest.to_bytes(4, "big"), digest)
    return f"{agent}/{parcels[0].row_id}/{len(parcels)}/{digest:08x}"
