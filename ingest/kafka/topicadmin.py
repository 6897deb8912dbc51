"""Create the topics of a deployment, compare the topics with the contract, and add partitions."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from ingest.contract.identity import NAME_PATTERN
from ingest.contract.topics import (
    ALERTS,
    CO_PARTITIONED,
    DELIVERIES,
    FRAMES,
    FRAMES_LATE,
    TOPICS,
    delivery_differences,
    partition_for,
    require_topics,
    setting_differences,
    topic_differences,
)
from ingest.exceptions import LogUnavailable, TopicMismatch
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import start
from ingest.runtime.clock import Deadline
from ingest.site import CameraConfig, PinConfig
from ingest.site.topic.signature import ConfigSigner
from ingest.site.topic.store import publish, read
from ingest.site.topic.view import Config

PROPAGATION_S = 15.0
"""Time limit for a change of topics to reach every broker, in seconds. A change usually takes 1 to 2 s, and longer on
a busy machine."""
_POLL_S = 0.1
_NAME = re.compile(NAME_PATTERN)
"""Pattern of a camera's name. The keys of frame records are checked against this pattern, because records from other
projects' producers may have any key."""
_SET_ON_TOPIC = 1
"""Number in Kafka's protocol for a setting that was set on the topic itself (DYNAMIC_TOPIC_CONFIG)."""


async def create(settings: KafkaSettings, partitions: int, replication: int = 1) -> list[str]:
    """Create the missing topics and return their names.

    Raise TopicMismatch if an existing topic differs from the contract.
    """
    topics = [
        NewTopic(
            settings.topic(name),
            topic.partitions or partitions,
            replication,
            topic_configs=topic.settings(replication),
        )
        for name, topic in TOPICS.items()
    ]
    created = []
    async with _admin(settings) as admin:
        response = await admin.create_topics(topics)
    for name, code, text in response.topic_errors:
        if code == 0:
            created.append(name.removeprefix(settings.prefix))
        elif code != TopicAlreadyExistsError.errno:
            raise LogUnavailable(f"topic {name} was not created: {for_code(code).__name__}: {text}")
    async with KafkaLog(settings, "sightline-topics") as log:
        require_topics(await _settled(log, lambda found: all(name in found for name in TOPICS)))
    return created


async def verify(settings: KafkaSettings, *, fix: bool = False) -> list[str]:
    """Compare the topics' partition counts and settings with the contract.

    The compared settings include retention, compression, type of timestamp and minimum in-sync replicas.
    With ``fix``, first correct the settings that differ, add missing partitions to ``deliveries``, and return the
    corrected differences. Nothing is corrected without ``fix``, because a correction that shortens the retention
    deletes records. Raise TopicMismatch if differences remain.
    """
    async with _admin(settings) as admin:
        described = await admin.describe_topics()
        counts = _counts(settings, described)
        problems, short = topic_differences(counts), delivery_differences(counts)
        if fix:
            await _add_deliveries(admin, settings, counts)
        else:
            problems += short
        differences = await _compared(settings, admin, described, fix=fix)
        deadline, left = Deadline.after(PROPAGATION_S), differences
        while fix and left and not deadline.passed:
            await asyncio.sleep(_POLL_S)
            left = await _compared(settings, admin, described, fix=False)
    if problems or left:
        raise TopicMismatch(problems + left)
    return short + differences


async def _compared(
    settings: KafkaSettings, admin: AIOKafkaAdminClient, described: Iterable[dict[str, Any]], *, fix: bool
) -> list[str]:
    """Return the differences between the topics' settings and the contract.

    With ``fix``, also correct the settings that differ.
    """
    differences = []
    for topic in described:
        name = topic["topic"].removeprefix(settings.prefix)
        if not topic["topic"].startswith(settings.prefix) or name not in TOPICS:
            continue
        replication = min(len(partition["replicas"]) for partition in topic["partitions"])
        found, own = await _settings_of(admin, topic["topic"])
        different = setting_differences(name, found, replication)
        if different and fix:
            await _set(admin, topic["topic"], own | TOPICS[name].settings(replication))
        differences += different
    return differences


def _counts(settings: KafkaSettings, described: Iterable[dict[str, Any]]) -> dict[str, int]:
    own = (topic for topic in described if topic["topic"].startswith(settings.prefix))
    return {topic["topic"].removeprefix(settings.prefix): len(topic["partitions"]) for topic in own}


async def _settings_of(admin: AIOKafkaAdminClient, topic: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the settings in force for a topic, and the settings that are set on the topic itself."""
    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    [(code, text, _, _, entries)] = response.resources
    if code:
        raise LogUnavailable(f"the settings of topic {topic} cannot be read: {for_code(code).__name__}: {text}")
    found = {entry[0]: entry[1] for entry in entries}
    return found, {entry[0]: entry[1] for entry in entries if entry[3] == _SET_ON_TOPIC}


async def _add_deliveries(admin: AIOKafkaAdminClient, settings: KafkaSettings, found: Mapping[str, int]) -> None:
    """Give ``deliveries`` as many partitions as ``alerts``."""
    if delivery_differences(found):
        await admin.create_partitions({settings.topic(DELIVERIES): NewPartitions(found[ALERTS])})


async def _set(admin: AIOKafkaAdminClient, topic: str, wanted: Mapping[str, str]) -> None:
    """Set all settings of a topic. The broker resets every setting that ``wanted`` does not name to its default."""
    [response] = await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(wanted))])
    [(code, text, *_)] = response.resources
    if code:
        raise LogUnavailable(f"the settings of topic {topic} were not changed: {for_code(code).__name__}: {text}")


async def grow(settings: KafkaSettings, partitions: int, signer: ConfigSigner | None = None) -> dict[str, int]:
    """Pin every known camera to its present partition, then add partitions to the topics in ``CO_PARTITIONED``.

    A camera is known if the topic ``config`` contains the camera, or if ``frames`` or ``frames.late`` contains frames
    of the camera. Return the new pins, which map a camera's name to its partition. Also give ``deliveries`` as many
    partitions as ``alerts``. After an interruption, call this function again to finish. Raise ValueError unless the
    number of partitions grows, and TopicMismatch if a topic is missing.
    """
    async with KafkaLog(settings, "sightline-topics") as log:
        found = await log.partitions()
        _require_growth(found, partitions)
        config = await read(log, trust=signer.trust() if signer else None)
        pins = await _new_pins(log, config, min(found[t] for t in CO_PARTITIONED))
        if signer:
            signer.after = config.signed_at
        await publish(log, [PinConfig(name=name, partition=p) for name, p in sorted(pins.items())], signer=signer)
        async with _admin(settings) as admin:
            short = [t for t in CO_PARTITIONED if found[t] < partitions]
            await admin.create_partitions({settings.topic(t): NewPartitions(partitions) for t in short})
            await _add_deliveries(admin, settings, found)
        require_topics(await _settled(log, lambda found: all(found.get(t) == partitions for t in CO_PARTITIONED)))
    return pins


async def remove(settings: KafkaSettings, prefix: str) -> list[str]:
    """Delete this project's topics whose full name begins with ``prefix``, and return the deleted names.

    Only demos and tests call this function. Other topics whose names begin with ``prefix`` remain.
    """
    async with _admin(settings) as admin:
        names = sorted(t for t in await admin.list_topics() if t.startswith(prefix) and t.endswith(tuple(TOPICS)))
        if names:
            await admin.delete_topics(names)
    return names


def _require_growth(found: Mapping[str, int], partitions: int) -> None:
    missing = [problem for problem in topic_differences(found) if "missing" in problem]
    if missing:
        raise TopicMismatch(missing)
    counts = [found[t] for t in CO_PARTITIONED]
    if partitions < max(counts) or partitions == min(counts):
        raise ValueError(
            f"{partitions} partitions requested, but topic {FRAMES} has {max(counts)}: expected a larger number, "
            "because Kafka cannot remove partitions"
        )


async def _new_pins(log: Log, config: Config, partitions: int) -> dict[str, int]:
    """Return a partition for each camera that is not pinned to a partition yet.

    A camera with frames gets the partition of its newest frame. A camera without frames gets the partition that
    follows from the hash of its name.
    """
    known = {camera.name: partition_for(camera.name, partitions) for camera in config.of(CameraConfig)}
    known |= await _seen(log)
    return {name: partition for name, partition in known.items() if name not in config.pins}


async def _seen(log: Log) -> dict[str, int]:
    """Return the partition of each camera's newest frame, by camera."""
    newest: dict[str, tuple[int, int]] = {}
    for topic in (FRAMES, FRAMES_LATE):
        beginnings, ends = await log.beginnings(topic), await log.ends(topic)
        for partition, end in ends.items():
            async for record in log.read(topic, partition, beginnings[partition], end):
                camera = (record.key or b"").decode(errors="replace")
                newest[camera] = max(newest.get(camera, (0, 0)), (record.timestamp_ms, partition))
    return {camera: partition for camera, (_, partition) in newest.items() if _NAME.fullmatch(camera)}


async def _settled(log: Log, done: Callable[[Mapping[str, int]], bool]) -> Mapping[str, int]:
    """Wait until ``done`` accepts the topics' partition counts, at most ``PROPAGATION_S``.

    Return the latest partition counts.
    """
    deadline = Deadline.after(PROPAGATION_S)
    while True:
        found = await log.partitions()
        if done(found) or deadline.passed:
            return found
        await asyncio.sleep(_POLL_S)


@asynccontextmanager
async def _admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = kafka.admin(settings)
    await start(admin, settings)
    try:
        yield admin
    except KafkaError as error:
        raise LogUnavailable(f"{settings.bootstrap} refused: {error!r}") from error
    finally:
        await admin.close()
