"""The way to the log: can it be used, are the topics there, and how do the clocks differ."""

from __future__ import annotations

import asyncio
import time

from edge_agent.clockoffset import ClockOffset
from edge_agent.doctor.finding import Finding, bad, good, poor
from edge_agent.exceptions import LinkError
from edge_agent.send.factory import make_link
from ingest.codec import encode
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka import KafkaSettings, producer
from ingest.kafkalog import KafkaLog
from ingest.kafkawriter import start, stop
from ingest.records import Heartbeat
from ingest.site import LinkConfig
from ingest.topics import STATUS, differences

__all__ = ["look_at_link"]

TIMEOUT_S = 10.0
EXCHANGES = 5
FAR_MS = 1000.0
"""Between the agent's clock and the broker's: rules that compare cameras of two agents go wrong by then."""


async def look_at_link(config: LinkConfig, settings: KafkaSettings) -> list[Finding]:
    """Open the link; on Kafka, also look at the topics and compare the clocks, with heartbeats of a doctor."""
    if config.kind != "kafka":
        return [await _opened(config, settings)]
    topics = await _look_at_topics(settings)
    if topics.state == "bad":
        return [topics]
    return [topics, await _opened(config, settings), _judged(await _compared(settings))]


async def _opened(config: LinkConfig, settings: KafkaSettings) -> Finding:
    link = make_link(config, settings, "doctor", {})
    what = f"link {link.address}"
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await link.open()
    except (LinkError, ConfigError, LogUnavailable, TimeoutError) as error:
        seen = str(error) or f"no answer within {TIMEOUT_S:.0f} s"
        return bad(what, seen, "check the address, the secrets and the firewall")
    finally:
        await link.close()
    return good(what, "it can be opened")


async def _look_at_topics(settings: KafkaSettings) -> Finding:
    what, log = f"Kafka {settings.bootstrap}", KafkaLog(settings, "doctor")
    try:
        problems = differences(await log.partitions())
    except (LogUnavailable, ConfigError) as error:
        return bad(what, str(error), "check the address, the secrets and the firewall")
    finally:
        await log.close()
    if problems:
        return bad(what, "; ".join(problems), "sightline topics create")
    return good(what, "its topics are as the contract says")


async def _compared(settings: KafkaSettings) -> ClockOffset:
    clock, client = ClockOffset(), producer(settings, "doctor")
    await start(client, settings)
    try:
        for _ in range(EXCHANGES):
            sent_ns = time.time_ns()
            beat = Heartbeat(service="doctor", instance="doctor", at_ns=sent_ns)
            met = await client.send_and_wait(settings.topic(STATUS), encode(beat), key=b"doctor", partition=0)
            clock.add(sent_ns, time.time_ns(), met.timestamp)
    finally:
        await stop(client)
    return clock


def _judged(clock: ClockOffset) -> Finding:
    found = clock.estimate
    if found is None:
        return poor("broker's clock", "it could not be compared", "run the doctor again")
    text = f"{found.offset_ms:+.0f} ms ± {found.error_ms:.0f} ms from ours"
    if abs(found.offset_ms) - found.error_ms > FAR_MS:
        return poor("broker's clock", text, "keep both clocks in time")
    return good("broker's clock", text)
