"""Interface of the sender to Kafka or to a gateway, and the records that a link carries."""

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
    """Record to send over the link. ``topic`` is a topic name without the site's prefix.

    ``key`` determines the partition. ``row_id`` is the id of the spool's row, 0 for a record that is not spooled.
    ``late`` marks a frame of the backlog, which is sent after live frames.
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
        """CRC-32 of the record.

        The checksum distinguishes records with the same row id, which occur after a spool file was replaced.
        """
        return zlib.crc32(self.value, zlib.crc32(f"{self.topic}/{self.key}/{self.row_id}".encode()))


def outbound_record(row: Row, lane: str) -> OutboundRecord:
    """Return the record of a row. ``lane`` is ``live`` or ``late``, as assigned to the row."""
    if row.kind == "frame":
        headers = h.frame_headers([FrameId(row.name, row.epoch, row.seq)], lane, row.traceparent)
        if row.account:
            headers[h.ACCOUNT] = row.account.encode()
        late = lane == LATE
        return OutboundRecord(FRAMES_LATE if late else FRAMES, row.name, row.record, headers, row.id, late)
    return OutboundRecord(READINGS if row.kind == "readings" else STATUS, row.name, row.record, {}, row.id)


class Link(Protocol):
    """Connection to Kafka or to a gateway. All methods must be called in one event loop, and do not block the loop.

    Records of one key keep their order within each of three groups: live frames, late frames, and other records.
    After LinkLost, the link must be closed. Records that were in flight may have arrived in Kafka, or may arrive
    later.
    """

    @property
    def clock(self) -> ClockOffset:
        """Difference between the broker's clock and the local clock, measured with published records."""

    @property
    def address(self) -> str:
        """Address of Kafka or of the gateway, for log messages."""

    async def open(self) -> None:
        """Connect. Raise LinkLost, or ConfigError for an unusable file."""

    async def send(self, record: OutboundRecord) -> asyncio.Future[None]:
        """Send a record. Return a future that is done when all in-sync replicas have the record. Raise LinkLost.

        The future fails with LinkLost, or with RecordRefused if Kafka or the gateway will never accept the record.
        """

    async def publish(self, record: OutboundRecord) -> None:
        """Send a record that may get lost, such as a heartbeat, without waiting. Raise no error."""

    async def close(self) -> None:
        """Disconnect without waiting for records in flight. ``close`` may be called twice, and before ``open``."""
