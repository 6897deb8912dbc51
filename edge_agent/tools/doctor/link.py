"""Checks of the link to Kafka or to a gateway: connection, topics, write permission and clock offset."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.produce import ProduceRequest

from edge_agent.clockoffset import ClockOffset
from edge_agent.exceptions import LinkError
from edge_agent.send.factory import make_link
from edge_agent.tools.doctor.finding import Finding, bad, good, poor
from ingest.contract.codec import encode
from ingest.contract.records import Heartbeat
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, STATUS, topic_differences
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import PLAINTEXT_ADVICE, PLAINTEXT_RISK, KafkaSettings, producer
from ingest.kafka.writer import start, stop
from ingest.site import LinkConfig

TIMEOUT_S = 10.0
HEARTBEATS_SENT = 5
"""Number of heartbeats that are sent to compare the clocks of agent and broker."""
_ADVICE = "check the address, the secrets and the firewall"
FAR_MS = 1000.0
"""Maximum offset between the clocks of agent and broker, in ms. If the offset exceeds 1 s, rules that combine the
cameras of two agents do not work."""
_NO_PARTITION = 2**31 - 1
"""Partition number that no topic has. A broker that receives a write to this partition checks the write permission,
but writes no record, because the partition does not exist."""
_WRITTEN = (FRAMES, FRAMES_LATE, READINGS, STATUS)


async def check_link(config: LinkConfig, settings: KafkaSettings) -> list[Finding]:
    """Check that the link to Kafka or to a gateway can be opened.

    If the link leads to Kafka, also check the topics and the write permission, and measure the clock offset with a
    few heartbeats.
    """
    if config.kind != "kafka":
        return [await _check_opens(config, settings)]
    topics = await _check_topics(settings)
    found = [*check_privacy(settings), topics]
    if topics.state == "bad":
        return found
    return [*found, await _check_opens(config, settings), *await _check_writes(settings)]


def check_privacy(settings: KafkaSettings) -> list[Finding]:
    """Return a finding with state ``poor`` if records leave this machine without TLS, else an empty list."""
    exposed = settings.plaintext_hosts
    text = f"without TLS: {PLAINTEXT_RISK}"
    return [poor(f"link to {', '.join(exposed)}", text, PLAINTEXT_ADVICE)] if exposed else []


async def _check_opens(config: LinkConfig, settings: KafkaSettings) -> Finding:
    link = make_link(config, settings, "doctor", {})
    subject = f"link {link.address}"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await link.open()
    except (LinkError, ConfigError, LogUnavailable, TimeoutError) as error:
        return bad(subject, str(error) or f"no answer within {TIMEOUT_S:.0f} s", _ADVICE)
    finally:
        await link.close()
    return good(subject, "can be opened")


async def _check_topics(settings: KafkaSettings) -> Finding:
    subject = f"Kafka {settings.bootstrap}"
    with _client_errors() as errors:
        try:
            async with KafkaLog(settings, "doctor") as log:
                problems = topic_differences(await log.partitions())
        except (LogUnavailable, ConfigError) as error:
            return bad(subject, errors[-1] if errors else str(error), _ADVICE)
    if problems:
        return bad(subject, "; ".join(problems), "sightline topics create")
    return good(subject, "all topics match the contract")


@contextlib.contextmanager
def _client_errors() -> Iterator[list[str]]:
    """Yield a list that collects aiokafka's error messages.

    Only aiokafka's log shows whether a password is wrong or a broker is missing.
    """
    errors: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("aiokafka")
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)


async def _check_writes(settings: KafkaSettings) -> list[Finding]:
    client = producer(settings, "doctor")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await start(client, settings)
    except (LogUnavailable, KafkaError, TimeoutError) as error:
        return [bad("permission to write", f"no producer could be started: {error}", _ADVICE)]
    try:
        permission = await check_permission(client, settings)
        if permission.state == "bad":
            return [permission]
        return [permission, await check_clock_offset(client, settings)]
    finally:
        await stop(client)


async def check_permission(client: Any, settings: KafkaSettings) -> Finding:
    """Check that the agent may write to each of its topics, without writing a record.

    The caller must have started the Kafka producer ``client``.
    """
    subject = "permission to write"
    topics = [(settings.topic(topic), [(_NO_PARTITION, b"")]) for topic in _WRITTEN]
    request = ProduceRequest(transactional_id=None, required_acks=-1, timeout=round(TIMEOUT_S * 1000), topics=topics)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await client.client.send(client.client.get_random_node(), request)
    except (KafkaError, OSError, TimeoutError) as error:
        return bad(subject, f"the broker did not answer: {error!r}", "run the doctor again")
    refused = refused_topics(answer.topics)
    if refused:
        user = settings.username or "this client"
        return bad(subject, f"{user} may not write to {', '.join(refused)}", "give the user an ACL for writing")
    return good(subject, ", ".join(topic for topic, _ in topics))


def refused_topics(answers: Sequence[Any]) -> list[str]:
    """Return the topics that the client may not write to, according to the broker's answer."""
    code = TopicAuthorizationFailedError.errno
    return sorted(topic for topic, partitions in answers if any(found[1] == code for found in partitions))


async def check_clock_offset(client: AIOKafkaProducer, settings: KafkaSettings) -> Finding:
    """Measure the offset between the agent's and the broker's clock with a few heartbeats.

    The caller must have started the Kafka producer ``client``.
    """
    clock = ClockOffset()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for _ in range(HEARTBEATS_SENT):
                sent_ns = time.time_ns()
                beat = Heartbeat(service="doctor", instance="doctor", at_ns=sent_ns)
                metadata = await client.send_and_wait(
                    settings.topic(STATUS), encode(beat), key=b"doctor", partition=0
                )
                clock.add(sent_ns, time.time_ns(), metadata.timestamp)
    except (KafkaError, TimeoutError) as error:
        return bad("broker's clock", f"a heartbeat could not be written: {error!r}", _ADVICE)
    found = clock.estimate
    if found is None:
        return poor("broker's clock", "could not be compared with the agent's clock", "run the doctor again")
    text = f"{found.offset_ms:+.0f} ms ± {found.error_ms:.0f} ms from this machine"
    if abs(found.offset_ms) - found.error_ms > FAR_MS:
        return poor("broker's clock", text, "synchronise both clocks")
    return good("broker's clock", text)
