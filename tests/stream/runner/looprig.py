"""A partition loop on a fake group member that acknowledges on request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from prometheus_client import CollectorRegistry

from ingest.contract.topics import FRAMES
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.outage import KafkaWatch
from ingest.runtime.clock import SystemClock
from stream.metrics import StreamMetrics
from stream.runner.acks import FetchNumber
from stream.runner.echo import EchoStage
from stream.runner.partition import PartitionLoop, Shared
from tests.stream.runner.fakemember import FakeMember

PARTITION = TopicPartition(FRAMES, 0)
ASSIGNMENT = 7


class CountingPool(ThreadPoolExecutor):
    """One worker thread that counts its calls."""

    calls = 0

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls += 1
        return super().submit(*args, **kwargs)


class LoopRig:
    """A partition loop with a fake member, a log in memory and one worker thread."""

    def __init__(self, stage: EchoStage, log: MemoryLog | None = None, watch: KafkaWatch | None = None) -> None:
        self.failures: list[tuple[BaseException, TopicPartition, int]] = []
        self.log = log or MemoryLog()
        self.member = FakeMember()
        self.pool = CountingPool(1)
        shared = Shared(
            stage=stage,
            member=self.member,
            log=self.log,
            clock=SystemClock(),
            pool=self.pool,
            metrics=StreamMetrics(CollectorRegistry(), stage.name),
            opening=asyncio.Semaphore(1),
            failed=lambda *failure: self.failures.append(failure),
            watch=watch or KafkaWatch(),
        )
        self.loop = PartitionLoop(shared, PARTITION, ASSIGNMENT)

    @property
    def sent(self) -> list[tuple[Outgoing, asyncio.Future[None]]]:
        return self.member.sent

    def offer(self, first: int, last: int) -> None:
        """Offer the records from ``first`` up to but not including ``last``, as one fetch returns them."""
        self.loop.offer(
            [LogRecord(FRAMES, 0, o, None, b"%d" % o) for o in range(first, last)], FetchNumber(ASSIGNMENT, first)
        )

    def offer_one(self, offset: int, number: FetchNumber) -> None:
        self.loop.offer([LogRecord(FRAMES, 0, offset, None, b"%d" % offset)], number)


Make = Callable[..., LoopRig]
