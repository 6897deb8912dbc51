"""The seam to the consumer group: one process is one member of the group of its stage.

The member finds out which partitions belong to this process, fetches their records and writes the output. Its owner,
the runner, decides which records are fed and which offsets are committed. All methods on both sides are called in
the thread of the event loop. ``stream.runner.faust`` has the implementation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from stream.runner.acks import FetchNumber


class MemberOwner(Protocol):
    """Receives the records of a member and its assignments. No method raises."""

    def deliver(self, record: LogRecord, number: FetchNumber) -> None:
        """Take one fetched record. Never blocks."""
        ...

    def safe_position(self, tp: TopicPartition) -> int | None:
        """Return the next offset that a restart must read, None while it is not known. The member commits it."""
        ...

    async def assigned(self, tps: Sequence[TopicPartition]) -> None:
        """Start work on the partitions of a new assignment. They replace all partitions of the last one."""
        ...

    async def revoked(self) -> None:
        """Stop work on all partitions: every rebalance revokes all of them."""
        ...

    def failed(self, error: BaseException) -> None:
        """End the process: the member cannot go on."""
        ...


class GroupMember(Protocol):
    """One member of a consumer group."""

    @property
    def rebalancing(self) -> bool:
        """Whether partitions were revoked and the next assignment has not come yet."""
        ...

    @property
    def crash_reason(self) -> BaseException | None:
        """The error that stopped the member, None without one."""
        ...

    async def run(self) -> None:
        """Join the group and return when the member has stopped, by ``stop`` or by an error."""
        ...

    async def stop(self) -> None:
        """Leave the group and close the connections."""
        ...

    async def commit(self) -> None:
        """Commit the safe positions of all partitions, after any commit that is under way."""
        ...

    async def begin(self, tp: TopicPartition, position: int, assignment: int) -> bool:
        """Fetch a partition from ``position`` on, and number its records from 0 under this assignment.

        Return False when another member owns the partition by now. Nothing is fetched of a partition before.
        """
        ...

    def pause(self, tp: TopicPartition) -> None:
        """Fetch no more of a partition. Records that are fetched already still come."""
        ...

    def resume(self, tp: TopicPartition) -> None:
        """Fetch a paused partition again."""
        ...

    def undelivered(self, tp: TopicPartition, due: FetchNumber) -> int:
        """Return how many records of a partition are at the broker or on their way, when ``due`` comes next.

        Offsets without a record count too, until the fetch has passed them. Safe in any thread.
        """
        ...

    async def send(self, record: Outgoing) -> Awaitable[Any]:
        """Hand a record to the producer. The result is awaited for the acknowledgement of the broker."""
        ...
