"""Add the partitions and the group of a transaction at its coordinator, in one write instead of two.

aiokafka sends five requests for a transaction, each after the response to the previous one: add partitions, records,
add group, offsets, end. The broker handles the requests of one connection one after another, so the two requests that
add something may be sent together, before the records. A transaction then takes four round trips instead of five, and
fewer wake-ups of the client and of the broker (decision 6).

The offsets must not be sent before these two requests are accepted. While the broker still writes the markers of the
previous transaction, the broker refuses the two requests, but regards offsets as part of the previous transaction and
commits them. If the process then ended, the records of the offsets would be lost.

The requests change nothing that aiokafka cannot repeat. If the broker refuses one of them, aiokafka sends them again,
with its own pauses and checks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.producer.sender import AddOffsetsToTxnHandler, AddPartitionsToTxnHandler


async def announce(producer: AIOKafkaProducer, partitions: Collection[TopicPartition], group: str) -> None:
    """Add partitions, and a group whose offsets will be committed, to the producer's open transaction.

    If the broker refuses a request, leave both to aiokafka.
    """
    sender, manager = producer._sender, producer._txn_manager
    coordinator = await sender._find_coordinator(CoordinationType.TRANSACTION, manager.transactional_id)
    requests = [
        AddPartitionsToTxnHandler(sender, partitions).create_request(),
        AddOffsetsToTxnHandler(sender, group).create_request(),
    ]
    # aiokafka must know of both even if the requests are interrupted: otherwise an abort would send no request.
    manager._txn_partitions.update(partitions)
    manager._txn_consumer_group = group
    sends = (producer.client.send(coordinator, each, group=ConnectionGroup.COORDINATION) for each in requests)
    responses = await asyncio.gather(*sends, return_exceptions=True)
    if not all(map(_is_accepted, responses)):
        manager._txn_partitions.clear()
        manager._txn_consumer_group = None


def _is_accepted(response: Any) -> bool:
    """Return whether a response has no error code other than 0."""
    if isinstance(response, BaseException):
        return False
    if hasattr(response, "errors"):
        return all(code == 0 for _, partitions in response.errors for _, code in partitions)
    return bool(response.error_code == 0)
