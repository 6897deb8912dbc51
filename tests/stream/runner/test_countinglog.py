"""Tests that the counting log passes the contract suite of all logs."""

from __future__ import annotations

from typing import cast

import pytest

from ingest.kafka.log import Log, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from stream.runner.watchdog import CountingLog
from tests.contract.test_log import PARTITIONS, LogContract, numbered, read_all


class TestCountingLog(LogContract):
    @pytest.fixture
    def log(self) -> Log:
        return cast(Log, CountingLog(MemoryLog(PARTITIONS)))

    async def abort_one(self, log: Log, topic: str) -> None:
        """Do nothing: this log never holds records of a failed transaction."""

    async def take(self, log: Log, topic: str, before: int) -> None:
        counting = cast(CountingLog, log)
        assert isinstance(counting._log, MemoryLog)
        counting._log.forget(TopicPartition(topic, 0), before)

    async def test_the_counting_log_counts_the_records_that_are_read(self, log: Log) -> None:
        counting = cast(CountingLog, log)
        for record in numbered(3):
            await log.produce(record)
        await read_all(log, numbered(1)[0].topic)
        assert counting.records == 3
