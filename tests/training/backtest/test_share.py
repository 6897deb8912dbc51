"""Test of the consumer group of a shared backtest on a real Kafka."""

from __future__ import annotations

import asyncio

import pytest

from ingest.contract.topics import FRAMES, FRAMES_LATE
from ingest.kafka import topicadmin
from ingest.kafka.log import TopicPartition
from ingest.kafka.settings import KafkaSettings
from training.backtest.share import GroupShare

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

ALL = {TopicPartition(topic, p) for topic in (FRAMES, FRAMES_LATE) for p in range(2)}


async def until_shared(*members: GroupShare) -> None:
    """Wait until every member has partitions, and all together have each partition once."""
    async with asyncio.timeout(60):
        while True:
            parts = [set(member.assigned) for member in members]
            if all(parts) and sum(map(len, parts)) == len(ALL) and set().union(*parts) == ALL:
                return
            await asyncio.gather(*(member.changed(1.0) for member in members))


async def test_a_process_that_joins_a_shared_backtest_gets_only_partitions_that_no_process_is_reading(
    kafka: str, prefix: str
) -> None:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, partitions=2)
    one = GroupShare(settings, "one", "backtest-g")
    async with one.joined():
        await until_shared(one)
        for reading in sorted(ALL)[:2]:
            one.reading = reading
            async with GroupShare(settings, "two", "backtest-g").joined() as two:
                await until_shared(one, two)
                assert reading in one.assigned
            await until_shared(one)
