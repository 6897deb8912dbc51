"""Test that a service follows the config topic, on a real Kafka."""

from __future__ import annotations

import asyncio

import pytest

from ingest.exceptions import ConfigError
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.service import Service
from ingest.site import PipelineConfig
from ingest.site.topic.store import publish
from ingest.site.topic.view import Config

CARS = PipelineConfig(name="cars", model="yolox", width=16, height=16)

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]


async def test_a_service_gets_each_new_configuration_even_after_refusing_one(kafka: str, prefix: str) -> None:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    await topicadmin.create(settings, partitions=1)
    seen: asyncio.Queue[Config] = asyncio.Queue()

    def configure(config: Config) -> None:
        seen.put_nowait(config)
        raise ConfigError("config topic", CARS.key, "yolox", "another model")

    async with KafkaLog(settings, "test-follow") as log:
        await publish(log, [CARS])
        following = asyncio.create_task(Service("test", settings).follow_config(Config({}), configure))
        try:
            assert (await seen.get()).entries == {CARS.key: CARS}
            await publish(log, [], [CARS.key])
            assert (await seen.get()).entries == {}
        finally:
            following.cancel()
            await asyncio.wait({following})
