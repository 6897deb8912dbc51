"""The settings of FastStream's client, which its programs share."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from faststream import AckPolicy
from faststream.confluent import KafkaBroker, KafkaMessage

from benchmarks.peers.jobs import LINGER_MS, MAX_FETCH_WAIT_MS

POLL_S = 0.01
"""Time in seconds that a poll waits for more messages. FastStream's default of 0.1 s would delay each batch that is
not full by 0.1 s."""


def make_broker(options: Namespace) -> KafkaBroker:
    """Return a client whose producer is as safe and as fast as Sightline's."""
    return KafkaBroker(
        options.bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=LINGER_MS,
        logger=None,
        config={"fetch.wait.max.ms": MAX_FETCH_WAIT_MS},
    )


def subscription(options: Namespace, *, batches: bool) -> dict[str, Any]:
    """Return the arguments of a subscriber, which gets single messages, or batches of at most ``options.batch``. A
    batch is committed after the function of the subscriber has ended."""
    found: dict[str, Any] = {
        "group_id": options.group,
        "polling_interval": POLL_S,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "decoder": _raw,
    }
    if batches:
        found |= {"batch": True, "max_records": options.batch, "ack_policy": AckPolicy.ACK}
    return found


async def _raw(message: KafkaMessage) -> Any:
    return message.body
