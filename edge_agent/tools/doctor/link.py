"""The way to the log: can it be used, are the topics there, and how do the clocks differ."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from edge_agent.clockoffset import ClockOffset
from edge_agent.exceptions import LinkError
from edge_agent.send.factory import make_link
from edge_agent.tools.doctor.finding import Finding, bad, good, poor
from edge_agent.tools.doctor.rights import look_at_rights
from ingest.contract.codec import encode
from ingest.contract.records import Heartbeat
from ingest.contract.topics import STATUS, topic_differences
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings, producer
from ingest.kafka.writer import start, stop
from ingest.site import LinkConfig

TIMEOUT_S = 10.0
_MEND = "check the address, the secrets and the firewall"
EXCHANGES = 5
FAR_MS = 1000.0
"""Between the agent's clock and the broker's: rules that compare cameras of two agents go wrong by then."""


async def look_at_link(config: LinkConfig, settings: KafkaSettings) -> list[Finding]:
    """Open the link; on Kafka, also look at topics and rights, and compare clocks, with heartbeats of a doctor."""
    if config.kind != "kafka":
        return [await _opened(config, settings)]
    topics = await _look_at_topics(settings)
    if topics.state == "bad":
        return [topics]
    return [topics, await _opened(config, settings), *await _written(settings)]


async def _opened(config: LinkConfig, settings: KafkaSettings) -> Finding:
    link = make_link(config, settings, "doctor", {})
    what = f"link {link.address}"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await link.open()
    except (LinkError, ConfigError, LogUnavailable, TimeoutError) as error:
        seen = str(error) or f"no answer within {TIMEOUT_S:.0f} s"
        return bad(what, seen, _MEND)
    finally:
        await link.close()
    return good(what, "it can be opened")


async def _look_at_topics(settings: KafkaSettings) -> Finding:
    what = f"Kafka {settings.bootstrap}"
    with _heard() as said:
        try:
            async with KafkaLog(settings, "doctor") as log:
                problems = topic_differences(await log.partitions())
        except (LogUnavailable, ConfigError) as error:
            return bad(what, said[-1] if said else str(error), _MEND)
    if problems:
        return bad(what, "; ".join(problems), "sightline topics create")
    return good(what, "its topics are as the contract says")


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Yield what aiokafka says of failures: a wrong password and no broker are one error, and differ only there."""
    said: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("aiokafka")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


async def _written(settings: KafkaSettings) -> list[Finding]:
    client = producer(settings, "doctor")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await start(client, settings)
    except (LogUnavailable, KafkaError, TimeoutError) as error:
        return [bad("right to write", f"no producer could be started: {error}", _MEND)]
    try:
        rights = await look_at_rights(client, settings)
        return [rights] if rights.state == "bad" else [rights, await _compared(client, settings)]
    finally:
        await stop(client)


async def _compared(client: AIOKafkaProducer, settings: KafkaSettings) -> Finding:
    clock = ClockOffset()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for _ in range(EXCHANGES):
                sent_ns = time.time_ns()
                beat = Heartbeat(service="doctor", instance="doctor", at_ns=sent_ns)
                met = await client.send_and_wait(settings.topic(STATUS), encode(beat), key=b"doctor", partition=0)
                clock.add(sent_ns, time.time_ns(), met.timestamp)
    except (KafkaError, TimeoutError) as error:
        return bad("broker's clock", f"a heartbeat could not be written: {error!r}", _MEND)
    return _judged(clock)


def _judged(clock: ClockOffset) -> Finding:
    found = clock.estimate
    if found is None:
        return poor("broker's clock", "it could not be compared", "run the doctor again")
    text = f"{found.offset_ms:+.0f} ms ± {found.error_ms:.0f} ms from ours"
    if abs(found.offset_ms) - found.error_ms > FAR_MS:
        return poor("broker's clock", text, "keep both clocks in time")
    return good("broker's clock", text)
