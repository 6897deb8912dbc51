"""A stage that copies its input.

Use this stage to try out a cluster, to measure the runner alone, and in contract tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ingest.contract.topics import BATCHES, FRAMES
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.runtime.clock import Clock, SystemClock
from stream.runner.processor import Processor, Work


@dataclass
class EchoStage:
    """A stage that copies records to the same partition of ``target``, in groups of ``hold`` records, or in smaller
    groups after ``delay_s``."""

    name: str = "echo"
    topics: tuple[str, ...] = (FRAMES,)
    target: str = BATCHES
    hold: int = 1
    delay_s: float = 0.05
    clock: Clock = field(default_factory=SystemClock)

    async def open(self, tp: TopicPartition, position: int, log: Log) -> EchoProcessor:
        """Create the state of a partition without reading records back."""
        return EchoProcessor(self)


class EchoProcessor(Processor):
    """The processor that holds records back until a group is full or its first record has waited for ``delay_s``."""

    def __init__(self, stage: EchoStage) -> None:
        self._stage = stage
        self._held: list[LogRecord] = []
        self._due: float | None = None

    @property
    def deadline(self) -> float | None:
        """Time when the first held record must be written, on the monotonic clock in seconds."""
        return self._due

    def process(self, record: LogRecord) -> Sequence[Work]:
        """Add a record to the group, and write the group if the group is full."""
        self._held.append(record)
        if self._due is None:
            self._due = self._stage.clock.monotonic() + self._stage.delay_s
        return self.flush() if len(self._held) >= self._stage.hold else ()

    def tick(self) -> Sequence[Work]:
        """Write the group of held records."""
        return self.flush()

    def flush(self) -> Sequence[Work]:
        """Write the group of held records."""
        held, self._held, self._due = self._held, [], None
        records = tuple(Outgoing(self._stage.target, r.partition, r.value, r.key, r.headers) for r in held)
        return (Work(records, tuple(r.offset for r in held)),) if held else ()
