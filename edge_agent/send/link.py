"""``Link``, an interface for sending records to Kafka or to a gateway, and ``OutboundRecord``, a record to send."""

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
    """Record to send over the link. ``topic`` is the topic's name without the configured prefix.

    ``key`` determines the partition. ``row_id`` is the id of the record's row in the spool, or 0 if the record is not
    in the spool. ``late`` marks a frame of the backlog; frames of the backlog are sent after live frames.
    """

    topic: str
    key: str
    value: bytes
    headers: Mapping[str, bytes] = field(default_factory=dict)
    row_id: int = 0
    late: bool = False

    @property
    def size(self) -> int:
        """Size of the record's value in bytes."""
        return len(self.value)

    @property
    def digest(self) -> int:
        """CRC-32 of the record's value, topic, key and row id.

        The checksum distinguishes records with equal row ids. Row ids repeat after an operator has replaced the spool
        file.
        """
        return zlib.crc32(self.value, zlib.crc32(f"{self.topic}/{self.key}/{self.row_id}".encode()))


def outbound_record(row: Row, lane: str) -> OutboundRecord:
    """Return the record to send for a row of the spool.

    ``lane`` is ``live`` for a current frame, ``late`` for a frame of the backlog, or ``others``.
    """
    if row.kind == "frame":
        headers = h.frame_headers([FrameId(row.name, row.epoch, row.seq)], lane, row.traceparent)
        if row.account:
            headers[h.ACCOUNT] = row.account.encode()
        late = lane == LATE
        return OutboundRecord(FRAMES_LATE if late else FRAMES, row.name, row.record, headers, row.id, late)
    return OutboundRecord(READINGS if row.kind == "readings" else STATUS, row.name, row.record, {}, row.id)


class Link(Protocol):
    """Connection to Kafka or to a gateway.

    All methods must be called in the same event loop, and never block that loop.

    Records with the same key keep their order within each of three groups: live frames, late frames, and other
    records. When a method or a future raises LinkLost, the caller must close the link. After LinkLost, a record in
    flight may already be in Kafka, or may still arrive in Kafka.
    """

    @property
    def clock(self) -> ClockOffset:
        """Estimate of the difference between the broker's clock and the local clock, from the timestamps of published
        records.
        """

    @property
    def address(self) -> str:
        """Address of Kafka or of the gateway, for log messages."""

    async def open(self) -> None:
        """Connect.

        Raise LinkLost if the connection fails, or ConfigError if a certificate or token file is unusable.
        """

    async def send(self, record: OutboundRecord) -> asyncio.Future[None]:
        """Send a record. Return a future that is done when all in-sync replicas have the record. Raise LinkLost.

        The future fails with LinkLost, or with RecordRefused if Kafka or the gateway will never accept the record.
        """

    async def publish(self, record: OutboundRecord) -> None:
        """Send a record that may get lost, such as a heartbeat, without waiting for an acknowledgement.

        Raise no error if the send fails.
        """

    async def close(self) -> None:
        """Disconnect without waiting for records in flight.

        ``close`` may be called repeatedly, and also before ``open``.
        """
