"""Tests of compression on a real broker: producers follow the contract, and consumers read the compression of other
producers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer

from ingest.contract.topics import EVENTS, FRAMES, TOPICS
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings, producer

pytestmark = pytest.mark.kafka

VALUE = b"the same words again and again " * 100


@pytest.fixture
async def log(kafka: str, prefix: str) -> AsyncIterator[KafkaLog]:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, 1)
    async with KafkaLog(settings, "test") as log:
        yield log
    await topicadmin.remove(settings, prefix)


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_records_in_every_compression_that_producers_may_use_are_read(log: KafkaLog, codec: str) -> None:
    foreign = AIOKafkaProducer(bootstrap_servers=log.settings.bootstrap, compression_type=codec)
    await foreign.start()
    try:
        await foreign.send_and_wait(log.settings.topic(FRAMES), VALUE, partition=0)
    finally:
        await foreign.stop()
    assert [record.value async for record in log.read(FRAMES, 0, 0, 1)] == [VALUE]


async def test_a_producer_compresses_each_topic_as_the_contract_of_the_topic_says(log: KafkaLog) -> None:
    sender = producer(log.settings, "test")
    made = sender._message_accumulator.create_builder
    compressions = []

    def recorded() -> object:
        compressions.append(sender._message_accumulator._compression_type)
        return made()

    sender._message_accumulator.create_builder = recorded
    await sender.start()
    try:
        for topic in (EVENTS, FRAMES):
            compressions.clear()
            await sender.send_and_wait(log.settings.topic(topic), VALUE, partition=0)
            lz4 = 3
            assert compressions[-1] == (lz4 if TOPICS[topic].compression == "lz4" else 0)
    finally:
        await sender.stop()
    await log.produce(Outgoing(EVENTS, 0, VALUE))
    assert [record.value async for record in log.read(EVENTS, 0, 0, 2)] == [VALUE, VALUE]
