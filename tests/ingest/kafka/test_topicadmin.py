"""Tests of topic administration on a real broker: create, verify, grow, remove."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ingest.contract.topics import (
    ALERTS,
    CO_PARTITIONED,
    DEADLETTER,
    DELIVERIES,
    FRAMES,
    FRAMES_LATE,
    STATUS,
    TOPICS,
    partition_for,
)
from ingest.exceptions import LogUnavailable, TopicMismatch
from ingest.kafka import settings as clients
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import Deadline
from ingest.site import CameraConfig, PinConfig
from ingest.site.topic.store import publish, read

pytestmark = pytest.mark.kafka


@pytest.fixture
async def settings(kafka: str, prefix: str) -> AsyncIterator[KafkaSettings]:
    settings = KafkaSettings(bootstrap=kafka, prefix=prefix)
    yield settings
    await topicadmin.remove(settings, prefix)


@pytest.fixture
async def log(settings: KafkaSettings) -> AsyncIterator[KafkaLog]:
    async with KafkaLog(settings, "test") as log:
        yield log


async def test_creating_topics_twice_creates_missing_topics_only_once(settings: KafkaSettings, log: KafkaLog) -> None:
    with pytest.raises(TopicMismatch, match="frames is missing"):
        await topicadmin.verify(settings)
    assert sorted(await topicadmin.create(settings, 3)) == sorted(TOPICS)
    assert await topicadmin.create(settings, 3) == []
    await topicadmin.verify(settings)
    found = await log.partitions()
    assert {found[name] for name in CO_PARTITIONED} == {3}
    assert found[STATUS] == 1
    assert await topicadmin.remove(settings, settings.prefix) == sorted(map(settings.topic, TOPICS))


async def differences_of(settings: KafkaSettings) -> list[str]:
    try:
        return await topicadmin.verify(settings)
    except TopicMismatch as error:
        return error.differences


async def test_every_topic_setting_that_differs_from_the_contract_is_named_and_corrected(
    settings: KafkaSettings,
) -> None:
    await topicadmin.create(settings, 1)
    other = {"retention.ms": "1000", "compression.type": "zstd", "min.insync.replicas": "2"}
    own = {"unclean.leader.election.enable": "true"}
    topic = settings.topic(STATUS)
    admin = clients.admin(settings)
    await admin.start()
    try:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, other | own)])
        deadline = Deadline.after(60)
        while not (differences := await differences_of(settings)):  # the broker applies a change after its answer
            assert not deadline.passed
            await asyncio.sleep(0.1)
        keys = {*other, "message.timestamp.type"}
        assert {key for key in keys for difference in differences if f"{key} = " in difference} == keys
        assert await topicadmin.verify(settings, fix=True) == differences
        assert await topicadmin.verify(settings) == []
        [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        entries = {entry[0]: entry[1] for entry in response.resources[0][4]}
        assert own.items() <= entries.items()
    finally:
        await admin.close()


async def test_removing_topics_removes_only_topics_of_the_contract(settings: KafkaSettings) -> None:
    theirs = settings.prefix + "orders"
    admin = clients.admin(settings)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(theirs, 1, 1)])
        await topicadmin.create(settings, 1)
        assert theirs not in await topicadmin.remove(settings, settings.prefix)
        left, deadline = set(TOPICS), Deadline.after(60)
        while left - {theirs}:  # a broker still lists a deleted topic for a short time
            assert not deadline.passed, left
            await asyncio.sleep(0.1)
            left = {t for t in await admin.list_topics() if t.startswith(settings.prefix)}
        assert left == {theirs}
        await admin.delete_topics([theirs])
    finally:
        await admin.close()


async def test_a_topic_whose_partitions_differ_from_the_contract_is_reported_and_not_changed(
    settings: KafkaSettings,
) -> None:
    admin = clients.admin(settings)
    await admin.start()
    await admin.create_topics([NewTopic(settings.topic(FRAMES), 5, 1), NewTopic(settings.topic(STATUS), 2, 1)])
    await admin.close()
    with pytest.raises(TopicMismatch, match="status has 2 partitions, expected 1; co-partitioned topics"):
        await topicadmin.create(settings, 3)


async def test_creating_topics_with_more_replicas_than_brokers_is_refused(settings: KafkaSettings) -> None:
    with pytest.raises(LogUnavailable, match=r"was not created: InvalidReplicationFactor\w*"):
        await topicadmin.create(settings, 1, replication=3)


async def test_adding_partitions_pins_every_known_camera_to_its_present_partition(
    settings: KafkaSettings, log: KafkaLog
) -> None:
    await topicadmin.create(settings, 2)
    named = [CameraConfig(name=f"camera-{i}", source="device:0") for i in range(4)]
    elsewhere = 1 - partition_for("camera-0", 2)  # its frames are in another partition than its hash says
    await publish(log, [*named, PinConfig(name="pinned", partition=0)])
    for topic, partition, key in (
        (FRAMES, elsewhere, b"camera-0"),
        (FRAMES, 1, b"only-in-frames"),
        (FRAMES_LATE, 0, b"only-late"),
        (FRAMES, 1, b"pinned"),
        (FRAMES, 0, b"No Camera!"),
        (DEADLETTER, 0, b"dead"),
    ):
        await log.produce(Outgoing(topic, partition, b"x", key=key))
    await log.produce(Outgoing(FRAMES, 0, b"no key"))
    pins = await topicadmin.grow(settings, 5)
    where_it_was = {camera.name: partition_for(camera.name, 2) for camera in named}
    assert pins == {**where_it_was, "camera-0": elsewhere, "only-in-frames": 1, "only-late": 0}
    found = await log.partitions()
    assert {found[name] for name in CO_PARTITIONED} == {5}
    config = await read(log)
    assert config.pins == {**pins, "pinned": 0}
    assert partition_for("camera-0", 5, config.pins) == elsewhere
    assert await topicadmin.grow(settings, 6) == {}
    assert (await read(log)).pins == config.pins


async def test_an_interrupted_addition_of_partitions_can_be_finished(settings: KafkaSettings, log: KafkaLog) -> None:
    await topicadmin.create(settings, 2)
    admin = clients.admin(settings)
    await admin.start()
    await admin.create_partitions({settings.topic(FRAMES): NewPartitions(4)})
    await admin.close()
    deadline = Deadline.after(60)
    while (await log.partitions())[FRAMES] != 4 and not deadline.passed:
        await asyncio.sleep(0.05)
    with pytest.raises(ValueError, match="expected a larger number"):
        await topicadmin.grow(settings, 3)
    await topicadmin.grow(settings, 4)
    found = await log.partitions()
    assert {found[name] for name in CO_PARTITIONED} == {4}


async def test_the_topic_deliveries_gets_as_many_partitions_as_the_topic_alerts(
    settings: KafkaSettings, log: KafkaLog
) -> None:
    await topicadmin.create(settings, 1)

    async def add_alerts(partitions: int) -> None:
        admin = clients.admin(settings)
        await admin.start()
        await admin.create_partitions({settings.topic(ALERTS): NewPartitions(partitions)})
        await admin.close()
        await have(ALERTS, partitions)

    async def have(topic: str, partitions: int) -> None:
        deadline = Deadline.after(60)
        while (await log.partitions())[topic] != partitions:  # a broker lists new partitions after its answer
            assert not deadline.passed
            await asyncio.sleep(0.05)

    await add_alerts(2)
    with pytest.raises(TopicMismatch, match="deliveries has 1 partitions, expected 2 as alerts has"):
        await topicadmin.verify(settings)
    assert len(await topicadmin.verify(settings, fix=True)) == 1
    await have(DELIVERIES, 2)
    await add_alerts(3)
    await topicadmin.grow(settings, 2)
    await have(DELIVERIES, 3)


async def test_growing_topics_to_fewer_or_equally_many_partitions_is_refused(settings: KafkaSettings) -> None:
    with pytest.raises(TopicMismatch, match="is missing"):
        await topicadmin.grow(settings, 3)
    await topicadmin.create(settings, 2)
    for fewer in (1, 2):
        with pytest.raises(ValueError, match="frames has 2: expected a larger number"):
            await topicadmin.grow(settings, fewer)


async def test_the_error_of_a_topic_operation_without_a_broker_names_the_address(prefix: str) -> None:
    nowhere = KafkaSettings(bootstrap="127.0.0.1:1", prefix=prefix)
    for work in (topicadmin.create(nowhere, 1), topicadmin.verify(nowhere), topicadmin.grow(nowhere, 2)):
        with pytest.raises(LogUnavailable, match=r"no Kafka at 127\.0\.0\.1:1"):
            await work
