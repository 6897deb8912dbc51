"""The seam for what records go over."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edge_agent.clockoffset import ClockOffset


@dataclass(frozen=True, slots=True)
class OutboundRecord:
    """One record on its way. ``topic`` is the contract's name; the partition is that of ``key``.

    ``row_id`` is the row of the spool, 0 for what is in none. ``late`` tells that it is backlog.
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
        """What tells this record from others under the same row id, as of a spool that was begun anew."""
        return zlib.crc32(self.value, zlib.crc32(f"{self.topic}/{self.key}/{self.row_id}".encode()))


class Link(Protocol):
    """A way to the log. All methods belong to one event loop; none blocks it.

    What is sent keeps its order: live parcels of one key among themselves, and late ones, and others. After LinkLost
    the link is of no further use but to be closed; what was in flight may have arrived, or arrive yet.
    """

    @property
    def clock(self) -> ClockOffset:
        """How the log's clock differs from ours, as far as what was published has shown it."""
        ...

    @property
    def address(self) -> str:
        """Where it leads, for people."""
        ...

    async def open(self) -> None:
        """Make ready to send. Raise LinkLost, or ConfigError for a file that cannot be used."""
        ...

    async def send(self, parcel: OutboundRecord) -> asyncio.Future[None]:
        """Take a parcel, and return what is done once the log has it on every replica.

        It ends with LinkLost, or with Refused when the log will never take this record. Raise LinkLost.
        """
        ...

    async def publish(self, parcel: OutboundRecord) -> None:
        """Send something that need not arrive. Does not wait for it, and raises nothing."""
        ...

    async def close(self) -> None:
        """Let go, and wait for nobody. May be called twice, and on a link that was never open."""
        ...
