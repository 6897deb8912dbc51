"""Tests of the counting log: it passes the contract of every log."""

from __future__ import annotations

import pytest

from ingest.kafka.log import Log, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from stream.runner.opening import CountingLog
from tests.contract.test_log import PARTITIONS, LogContract, numbered, read_all


class TestCountingLog(LogContract):
    @pytest.fixture
    def log(self) -> Log:
        return CountingLog(MemoryLog(PARTITIONS))

    async def abort_one(self, log: Log, topic: str) -> None:
        """Do nothing: this log never holds records of a failed transaction."""

    async def take(self, log: Log, topic: str, before: int) -> None:
        assert isinstance(log, CountingLog)
        assert isinstance(log._log, MemoryLog)
        log._log.forget(TopicPartition(topic, 0), before)

    async def test_records_that_are_read_are_counted(self, log: Log) -> None:
        assert isinstance(log, CountingLog)
        for record in numbered(3):
            await log.produce(record)
        await read_all(log, numbered(1)[0].topic)
        assert log.records == 3
