"""The seam between the sender and Kafka or a gateway, and the records that go over it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edge_agent.clockoffset import ClockOffset
from edge_agent.spool.schema import Row
from ingest.contract import headers as h
from ingest.contract.identity import LATE, FrameId
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, STATUS


@dataclass(frozen=True, slots=True)
class OutboundRecord:
    """One record for the link. ``topic`` is the contract's name; the partition is derived from ``key``.

    ``row_id`` is the row of the spool, 0 for a record that is not spooled. ``late`` marks backlog.
    """

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)
    row_id: int = 0
    late: bool = False

    @property
    def size(self) -> int:
        """Bytes of the record."""
        return len(self.value)

    @property
    def digest(self) -> int:
        """CRC-32 that differs between records with the same row id, as after a spool was replaced."""
        return zlib.crc32(self.value, zlib.crc32(f"{self.topic}/{self.key}/{self.row_id}".encode()))


def outbound_record(row: Row, lane: str) -> OutboundRecord:
    """Return the record of a row, on the lane on which the row was settled."""
    if row.kind == "frame":
        headers = h.frame_headers([FrameId(row.name, row.epoch, row.seq)], lane, row.traceparent)
        if row.account:
            headers[h.ACCOUNT] = row.account.encode()
        late = lane == LATE
        return OutboundRecord(FRAMES_LATE if late else FRAMES, row.name, row.record, headers, row.id, late)
    return OutboundRecord(READINGS if row.kind == "readings" else STATUS, row.name, row.record, {}, row.id)


class Link(Protocol):
    """A connection to Kafka or to a gateway. All methods belong to one event loop; none blocks it.

    Records keep their order among live records of one key, among late ones, and among all others. After LinkLost, the
    link can only be closed; records in flight may have arrived, or may arrive later.
    """

    @property
    def clock(self) -> ClockOffset:
        """Difference between the broker's clock and the local clock, measured with published records."""

    @property
    def address(self) -> str:
        """Address of the other side, for people."""

    async def open(self) -> None:
        """Connect. Raise LinkLost, or ConfigError for an unusable file."""

    async def send(self, record: OutboundRecord) -> asyncio.Future[None]:
        """Send a record. Return a future that ends once all replicas in sync have the record. Raise LinkLost.

        The future fails with LinkLost, or with RecordRefused if the other side will never accept the record.
        """

    async def publish(self, record: OutboundRecord) -> None:
        """Send a record that may get lost, without waiting for it. Raise nothing."""

    async def close(self) -> None:
        """Disconnect without waiting for records in flight. May be called twice, and before ``open``."""
