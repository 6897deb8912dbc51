"""A worker that copies frames and fails on a poisoned one. Run as ``python -m tests.stream.echo_worker``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.service import Service
from stream.runner.echo import EchoProcessor, EchoStage
from stream.runner.processor import Work

POISON = b"poison"
HOLD = 3


class PoisonEcho(EchoProcessor):
    """An echo processor that fails on one value."""

    def process(self, record: LogRecord) -> Sequence[Work]:
        """Echo the record, or fail."""
        if record.value == POISON:
            raise RuntimeError("poisoned")
        return super().process(record)


class PoisonStage(EchoStage):
    """A stage that writes groups of three, so that the deadline and the last flush have records to write."""

    async def open(self, tp: TopicPartition, position: int, log: Log) -> PoisonEcho:
        """Create the state of a partition."""
        return PoisonEcho(self)


async def make(log: Log) -> PoisonStage:
    """Make the stage."""
    return PoisonStage(hold=HOLD)


if __name__ == "__main__":
    from stream.runner.loop import serve

    service = Service("echo", KafkaSettings.from_env())
    sys.exit(service.run(lambda stop: serve(service, make, stop, instance="worker")))
