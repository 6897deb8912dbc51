"""Assignment of the partitions of a shared backtest. A process keeps the partition that it is reading."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from aiokafka import TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

_VERSION = 0


def shared_out(
    reading: Mapping[str, TopicPartition | None], partitions: Collection[TopicPartition]
) -> dict[str, list[TopicPartition]]:
    """Return the partitions of each member, as equal in number as possible.

    ``reading`` maps each member to the partition that the member is reading. The member keeps this partition. If two
    members read one partition, the first member by name keeps the partition.
    """
    shares: dict[str, list[TopicPartition]] = {member: [] for member in sorted(reading)}
    free = set(partitions)
    for member, share in shares.items():
        kept = reading[member]
        if kept in free:
            free.remove(kept)
            share.append(kept)
    for partition in sorted(free):
        min(shares.values(), key=len).append(partition)
    return shares


def keeping_assignor(reading: Callable[[], TopicPartition | None]) -> type[AbstractPartitionAssignor]:
    """Return the assignor of a consumer. ``reading`` returns the partition that the consumer's process is reading.

    aiokafka calls class methods of an assignor. So each consumer needs a class of its own.
    """

    class KeepingAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
        """Assign partitions with ``shared_out``. Each member names the partition that it is reading as it joins."""

        name = "keep-reading"

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            """Return the member's topics, and the partition that the member is reading."""
            kept = reading()
            user_data = f"{kept.partition} {kept.topic}".encode() if kept else b""
            return ConsumerProtocolMemberMetadata(_VERSION, list(topics), user_data)

        @classmethod
        def assign(
            cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            """Return the partitions of each member of the consumer group."""
            topics = {topic for member in members.values() for topic in member.subscription}
            partitions = [
                TopicPartition(topic, number)
                for topic in topics
                for number in cluster.partitions_for_topic(topic) or ()
            ]
            shares = shared_out({name: _kept(member.user_data) for name, member in members.items()}, partitions)
            return {name: _assignment(share) for name, share in shares.items()}

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            """Do nothing: the consumer reports the assignment to its listener."""

    return KeepingAssignor


def _kept(user_data: bytes) -> TopicPartition | None:
    number, _, topic = user_data.decode().partition(" ")
    return TopicPartition(topic, int(number)) if topic else None


def _assignment(share: Collection[TopicPartition]) -> ConsumerProtocolMemberAssignment:
    topics = sorted({topic for topic, _ in share})
    numbers = [(topic, sorted(number for one, number in share if one == topic)) for topic in topics]
    return ConsumerProtocolMemberAssignment(_VERSION, numbers, b"")
