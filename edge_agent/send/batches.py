"""Batches of records, one batch for each request to a gateway.

Pure, except that the module completes the records' futures.
"""

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
"""Maximum size in bytes of a batch of several records. A batch of ``MAX_BATCH_BYTES`` takes two seconds on an uplink
of 2 Mbit/s, so a broken request wastes at most two seconds. A record that is larger than ``MAX_BATCH_BYTES`` is sent
in a batch of its own."""
MIN_BATCH_BYTES = 16 * 1024
"""Minimum to which the batch size is reduced, in bytes. After two batches in a row without a response, the batch size
is halved, down to ``MIN_BATCH_BYTES``. If the size were not halved, a batch of 512 KiB would take 40 s at 100 kbit/s,
but the sender waits only 20 s for a response."""
MORE_BATCH_BYTES = 4 * 1024
"""Number of bytes by which each response increases the maximum batch size. The increase is small, so that a slow link
does not fail again at once."""


@dataclass(frozen=True, slots=True)
class QueuedRecord:
    """Record that waits to be sent to the gateway, and the future that receives the result of the send."""

    record: OutboundRecord
    done: asyncio.Future[None]

    def succeed(self) -> None:
        """Complete the future, because Kafka has stored the record."""
        if not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        """Complete the future with the error that prevented the send."""
        if not self.done.done():
            self.done.set_exception(error)


@dataclass
class BatchSize:
    """Maximum size in bytes of the batches of one queue (live, late or others).

    The maximum size is reduced when batches get no response.
    """

    bytes: int = MAX_BATCH_BYTES
    _silent: int = 0
    _silences: int = 0

    def answered(self, size: int) -> None:
        """Record a response to a batch of ``size`` bytes.

        A response to a batch of at most half the maximum size changes nothing, because such a response does not show
        that larger batches succeed.
        """
        if 2 * size > self.bytes:
            self._silences = 0
            self.bytes = min(MAX_BATCH_BYTES, self.bytes + MORE_BATCH_BYTES)

    def unanswered(self, size: int) -> None:
        """Record that a batch of ``size`` bytes got no response."""
        self._silent = max(self._silent, size)

    def begin(self) -> None:
        """Begin a connection. Halve the maximum size if two batches in a row got no response.

        After the first batch without a response, the maximum size is not reduced: the gateway recognises a repeated
        batch only if the batch has the same records.
        """
        silent, self._silent = self._silent, 0
        if silent > MIN_BATCH_BYTES:
            self._silences += 1
            if self._silences > 1:
                self.bytes = max(MIN_BATCH_BYTES, min(self.bytes, silent) // 2)


def batch_of(queue: deque[QueuedRecord], max_bytes: int = MAX_BATCH_BYTES) -> list[QueuedRecord]:
    """Remove the next batch from the front of a queue: at least one record, and further records while the total is at
    most ``max_bytes``.
    """
    batch = [queue.popleft()]
    size = batch[0].record.size
    while queue and len(batch) < MAX_BATCH_RECORDS and size + queue[0].record.size <= max_bytes:
        batch.append(queue.popleft())
        size += batch[-1].record.size
    return batch


def idempotency_key(agent: str, records: Sequence[OutboundRecord]) -> str:
    """Return the idempotency key of a batch.

    Repeats of a batch have the same key, and two different batches have different keys.

    The key consists of the agent's name, the row id of the first record, the number of records, and a checksum of all
    records.
    """
    digest = 0
    for record in records:
        digest = zlib.crc32(record.digest.to_bytes(4, "big"), digest)
    return f"{agent}/{records[0].row_id}/{len(records)}/{digest:08x}"
