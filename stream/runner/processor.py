"""The seam between what a stage decides and the loop that runs it.

A stage is pure logic over one partition: it is fed records in offset order and says what to write and which of the
records it was fed are done with once that is written. It knows no Faust, no Kafka and no clock of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition


@dataclass(frozen=True, slots=True)
class Work:
    """Records to write, and the input offsets that may be acknowledged once the broker has all of them.

    Every offset that a processor is fed appears in exactly one Work, sooner or later; a Work may have no records
    (nothing to say about these offsets) or no offsets. Works are written in the order in which they are returned.
    """

    records: tuple[Outgoing, ...] = ()
    done: tuple[int, ...] = ()


class Processor(Protocol):
    """One partition's state. Its methods are never called concurrently; they may run in a worker thread.

    A record that cannot be read is no exception: it becomes a dead letter in the returned Work. An exception that
    leaves any method ends the process.
    """

    def process(self, record: LogRecord) -> Sequence[Work]:
        """Take one record and return the work that is ready, if any."""
        ...

    def tick(self) -> Sequence[Work]:
        """Return the work that has become due. Called when ``deadline`` has passed, and at the end."""
        ...

    def flush(self) -> Sequence[Work]:
        """Return all the work that is still held back: the partition goes away or the process stops."""
        ...

    @property
    def deadline(self) -> float | None:
        """When ``tick`` must be called, on the monotonic clock in seconds; None when nothing is held back."""
        ...


class Stage(Protocol):
    """A stream processor: its name, its inputs, and how one partition's state comes to be."""

    @property
    def name(self) -> str:
        """The consumer group's name, without prefix."""
        ...

    @property
    def topics(self) -> tuple[str, ...]:
        """The input topics, as the contract names them."""
        ...

    async def open(self, tp: TopicPartition, position: int, log: Log) -> Processor:
        """Make the state of a partition whose next record is at ``position``.

        Reads back from the log what the state needs (the last seconds of its input, its own output) and emits
        nothing while it does so. Raise LogUnavailable.
        """
        ...
