"""Make the topics of a deployment, hold them against the contract, and let them grow."""

from __future__ import annotations

from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from ingest import kafka
from ingest.configstore import publish, read
from ingest.exceptions import LogUnavailable
from ingest.kafka import KafkaSettings
from ingest.kafkalog import KafkaLog
from ingest.site import PinConfig
from ingest.topics import CO_PARTITIONED, FRAMES, TOPICS, partition_for, require

__all__ = ["create", "grow", "remove", "verify"]


async def create(settings: KafkaSettings, partitions: int, replication: int = 1) -> list[str]:
    """Create the topics that are missing and return their names. Raise TopicMismatch if others differ."""
    admin = kafka.admin(settings)
    created = []
    try:
        await admin.start()
        for name, topic in TOPICS.items():
            new = NewTopic(
                settings.topic(name), topic.partitions or partitions, replication, topic_configs=topic.settings()
            )
            response = await admin.create_topics([new])
            code, text = response.topic_errors[0][1:3]
            if code == 0:
                created.append(name)
            elif code != TopicAlreadyExistsError.errno:
                raise LogUnavailable(f"topic {new.name} was not created: {for_code(code).__name__}: {text}")
    except KafkaError as error:
        raise LogUnavailable(f"no Kafka at {settings.bootstrap}: {error!r}") from error
    finally:
        await admin.close()
    await verify(settings)
    return created


async def verify(settings: KafkaSettings) -> None:
    """Raise TopicMismatch unless the topics are as the contract says."""
    log = KafkaLog(settings, "sightline-topics")
    try:
        require(await log.partitions())
    finally:
        await log.close()


async def grow(settings: KafkaSettings, partitions: int) -> dict[str, int]:
    """Add partitions to the co-partitioned topics. Every camera that is known is first pinned where it is.

    Return the pins that were written. Raise ValueError if there would be fewer partitions, TopicMismatch if the
    topics do not agree with each other.
    """
    log = KafkaLog(settings, "sightline-topics")
    try:
        found = await log.partitions()
        require(found)
        if partitions <= found[FRAMES]:
            raise ValueError(f"{FRAMES} has {found[FRAMES]} partitions: expected more, they are only ever added")
        config = await read(log)
        pins = {c.name: partition_for(c.name, found[FRAMES], config.pins) for c in config.cameras}
        await publish(log, [PinConfig(name=name, partition=p) for name, p in sorted(pins.items())])
    finally:
        await log.close()
    await _add_partitions(settings, partitions)
    return pins


async def remove(settings: KafkaSettings, prefix: str) -> list[str]:
    """Delete every topic whose full name begins with ``prefix``, and return their names. For demos and tests."""
    admin = kafka.admin(settings)
    try:
        await admin.start()
        names = sorted(t for t in await admin.list_topics() if t.startswith(prefix))
        if names:
            await admin.delete_topics(names)
    except KafkaError as error:
        raise LogUnavailable(f"no Kafka at {settings.bootstrap}: {error!r}") from error
    finally:
        await admin.close()
    return names


async def _add_partitions(settings: KafkaSettings, partitions: int) -> None:
    admin = kafka.admin(settings)
    try:
        await admin.start()
        await admin.create_partitions({settings.topic(t): NewPartitions(partitions) for t in CO_PARTITIONED})
    except KafkaError as error:
        raise LogUnavailable(f"partitions were not added: {error!r}") from error
    finally:
        await admin.close()
