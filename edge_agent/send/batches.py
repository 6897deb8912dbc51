"""Batches of records for one request to a gateway. Pure except for the futures."""

from __future__ import annotations

import asyncio
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from edge_agent.send.link import OutboundRecord

MAX_BATCH_RECORDS = 64
"""Maximum number of records in one request."""
MAX_BATCH_BYTES = 512 * 1024
"""Maximum size of a batch of several records: two seconds of a 2 Mbit/s uplink, so that a broken request costs no
more. A single record may be larger."""
MIN_BATCH_BYTES = 16 * 1024
"""Lower limit of the batch size. A batch that twice gets no response is halved, down to this limit: the sender waits
20 s for a response, and a full batch takes 40 s at 100 kbit/s."""
MORE_BATCH_BYTES = 4 * 1024
"""Bytes that each response adds to the batch size. Slow growth keeps a slow link from failing again at once."""


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """A record that waits for a request, and the future of its sender."""

    record: OutboundRecord
    done: asyncio.Future[None]

    def succeed(self) -> None:
        """Report that Kafka has the record."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """Report the error with which the record failed."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass
class BatchSize:
    """Maximum ``bytes`` of the batches of one lane, adapted to the responses that the link delivers."""

    bytes: int = MAX_BATCH_BYTES
    _silent: int = 0
    _silences: int = 0

    def answered(self, size: int) -> None:
        """Record a response to a batch of ``size`` bytes. A small batch, such as a heartbeat, does not count."""
        if 2 * size > self.bytes:
            self._silences = 0
            self.bytes = min(MAX_BATCH_BYTES, self.bytes + MORE_BATCH_BYTES)

    def unanswered(self, size: int) -> None:
        """Record that a batch of ``size`` bytes got no response."""
        self._silent = max(self._silent, size)

    def begin(self) -> None:
        """Begin a connection. Halve a batch that got no response twice.

        The first repeat keeps its size, because the gateway may know its idempotency key.
        """
        silent, self._silent = self._silent, 0
        if silent > MIN_BATCH_BYTES:
            self._silences += 1
            if self._silences > 1:
                self.bytes = max(MIN_BATCH_BYTES, min(self.bytes, silent) // 2)


def batch_of(queue: deque[QueuedRecord], max_bytes: int = MAX_BATCH_BYTES) -> list[QueuedRecord]:
    """Take the next batch from a queue, in order: one record, and more while they stay within ``max_bytes``."""
    batch = [queue.popleft()]
    size = batch[0].record.size
    while queue and len(batch) < MAX_BATCH_RECORDS and size + queue[0].record.size <= max_bytes:
        batch.append(queue.popleft())
        size += batch[-1].record.size
    return batch


def idempotency_key(agent: str, records: Sequence[OutboundRecord]) -> str:
    """Return the key that only repeats of this batch have: agent, first row, number of records, and digest."""
    digest = 0
    for record in records:
        digest = zlib.crc32(record.digest.to_bytes(4, "big"), digest)
    return f"{agent}/{records[0].row_id}/{len(records)}/{digest:08x}"
