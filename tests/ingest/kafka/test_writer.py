"""Tests of transactions with a producer that answers on request."""

from __future__ import annotations

import asyncio
from typing import Any

from ingest.contract.topics import BATCHES, RESULTS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import KafkaWriter


class AnsweringProducer:
    """A producer whose broker acknowledges records only once it has been asked to commit offsets."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._sent: list[asyncio.Future[None]] = []

    async def partitions_for(self, _: str) -> set[int]:
        return {0}

    async def begin_transaction(self) -> None:
        self.calls.append("begin")

    async def send(self, **_: Any) -> asyncio.Future[None]:
        self._sent.append(asyncio.get_running_loop().create_future())
        return self._sent[-1]

    async def send_offsets_to_transaction(self, *_: Any) -> None:
        self.calls.append("offsets")
        for acknowledged in self._sent:
            acknowledged.set_result(None)

    async def commit_transaction(self) -> None:
        assert all(acknowledged.done() for acknowledged in self._sent)
        self.calls.append("commit")


async def test_a_transaction_asks_for_its_offsets_while_its_records_are_not_acknowledged() -> None:
    writer = KafkaWriter(KafkaSettings(), "test", "engines-batches-0", timeout_s=60.0)
    await writer._producer.stop()
    writer._producer = producer = AnsweringProducer()
    records = [Outgoing(RESULTS, 0, b"result") for _ in range(3)]
    await writer.write(records, "engines", {TopicPartition(BATCHES, 0): 7})
    assert producer.calls == ["begin", "offsets", "commit"]
