"""A test on a real Kafka of a consumer group whose topic is deleted and created again."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from ingest.contract.topics import FRAMES
from ingest.exceptions import LogUnavailable
from ingest.kafka import settings as kafka_clients
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.position import BEYOND_EVERY_END, StartPosition, commit, start_position
from ingest.kafka.settings import KafkaSettings

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(480)]

GROUP = "prepare-live"
TP = TopicPartition(FRAMES, 0)


async def until_committed(log: KafkaLog, position: int) -> None:
    """Wait until a commit is visible: the broker ends a transaction after it has answered the commit."""
    async with asyncio.timeout(60):
        while await log.committed(GROUP, TP) != position:
            await asyncio.sleep(0.05)


async def until_gone(log: KafkaLog) -> None:
    """Wait until the broker applies the deletion of the topic: it answers the request when the controller has it."""
    async with asyncio.timeout(60):
        with contextlib.suppress(LogUnavailable):
            while await log.beginnings(FRAMES):
                await asyncio.sleep(0.05)


async def test_a_committed_offset_of_a_deleted_topic_does_not_skip_records_of_the_new_topic(
    kafka: str, prefix: str
) -> None:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, partitions=1)
    async with KafkaLog(settings, "test") as log:
        for _ in range(5):
            await log.produce(Outgoing(*TP, b"old"))
        admin = kafka_clients.admin(settings)
        await admin.start()
        await admin.delete_topics([settings.topic(FRAMES)])
        await admin.close()
        await until_gone(log)
    await topicadmin.create(settings, partitions=1)
    async with KafkaLog(settings, "test") as log:
        await log.produce(Outgoing(*TP, b"new"))
        for old in (5, BEYOND_EVERY_END):  # committed by a member that was still running, or that noticed it and ends
            await commit(log, GROUP, TP, old)
            await until_committed(log, old)
            assert await start_position(log, GROUP, TP) == StartPosition(0, recreated=True)
            await until_committed(log, 0)
