"""Whether this user may write what an agent writes, found out without writing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.produce import ProduceRequest

from edge_agent.tools.doctor.finding import Finding, bad, good
from ingest.contract.topics import FRAMES, FRAMES_LATE, READINGS, STATUS
from ingest.kafka.settings import KafkaSettings

TIMEOUT_S = 10.0
_NOWHERE = 2**31 - 1
"""A partition that no topic has: a broker asks for the right first, and then finds that there is nowhere to write."""
_WRITTEN = (FRAMES, FRAMES_LATE, READINGS, STATUS)


async def look_at_rights(producer: Any, settings: KafkaSettings) -> Finding:
    """Ask for the right to write to each topic that an agent writes to. The producer is a started one."""
    what = "right to write"
    asked = [(settings.topic(topic), [(_NOWHERE, b"")]) for topic in _WRITTEN]
    request = ProduceRequest(transactional_id=None, required_acks=-1, timeout=round(TIMEOUT_S * 1000), topics=asked)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await producer.client.send(producer.client.get_random_node(), request)
    except (KafkaError, OSError, TimeoutError) as error:
        return bad(what, f"it could not be asked for: {error!r}", "run the doctor again")
    refused = refused_topics(answer.topics)
    if refused:
        who = settings.username or "this client"
        return bad(what, f"{who} may not write to {', '.join(refused)}", "give its user the right, as an ACL")
    return good(what, f"{', '.join(topic for topic, _ in asked)}")


def refused_topics(answers: Sequence[Any]) -> list[str]:
    """Return the topics that an answer refuses to let this user write to."""
    code = TopicAuthorizationFailedError.errno
    return sorted(topic for topic, partitions in answers if any(found[1] == code for found in partitions))
