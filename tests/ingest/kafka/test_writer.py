"""Tests of transactions with a producer that answers on request."""

from __future__ import annotations

import asyncio
from typing import Any

from ingest.contract.topics import BATCHES, RESULTS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import KafkaWriter


class AnsweringProducer:
    """A producer whose broker acknowledges records some turns of the event loop after they were sent."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._answers: list[asyncio.Task[None]] = []

    async def partitions_for(self, _: str) -> set[int]:
        return {0}

    async def begin_transaction(self) -> None:
        self.calls.append("begin")

    async def send(self, **_: Any) -> asyncio.Task[None]:
        self._answers.append(asyncio.create_task(self._acknowledge()))
        return self._answers[-1]

    async def _acknowledge(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        self.calls.append("acknowledged")

    async def send_offsets_to_transaction(self, *_: Any) -> None:
        self.calls.append("offsets")

    async def commit_transaction(self) -> None:
        self.calls.append("commit")


async def test_a_transaction_commits_its_offsets_only_after_all_its_records_are_acknowledged() -> None:
    """Sent side by side, the two meet in the broker in one of twenty transactions, which costs 50 ms: decision 6."""
    writer = KafkaWriter(KafkaSettings(), "test", "engines-batches-0", timeout_s=60.0)
    await writer._producer.stop()
    writer._producer = producer = AnsweringProducer()
    records = [Outgoing(RESULTS, 0, b"result") for _ in range(3)]
    await writer.write(records, "engines", {TopicPartition(BATCHES, 0): 7})
    assert producer.calls == ["begin", *["acknowledged"] * 3, "offsets", "commit"]
