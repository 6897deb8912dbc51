"""Announce the partitions and offsets of a transaction to its coordinator, in one write instead of three.

aiokafka sends five requests for a transaction, each after the response to the previous one: add partitions, records,
add group, offsets, end. The broker handles the requests of one connection one after another, so the three requests
to the coordinator may be sent together, before the records. A transaction then takes three round trips instead of
five, and fewer wake-ups of the client and of the broker (decision 6).

The requests change nothing that aiokafka cannot repeat. If the broker refuses one of them, aiokafka sends them again,
with its own pauses and checks.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.producer.sender import AddOffsetsToTxnHandler, AddPartitionsToTxnHandler
from aiokafka.protocol.transaction import TxnOffsetCommitRequest


async def announce(
    producer: AIOKafkaProducer,
    partitions: Collection[TopicPartition],
    group: str,
    offsets: Mapping[TopicPartition, int],
) -> bool:
    """Add partitions and a group to the producer's open transaction, and commit offsets of the group in the
    transaction.

    Return False if the caller must commit the offsets through aiokafka, because the broker has refused a request or
    the group has another coordinator than the transaction.
    """
    sender, manager = producer._sender, producer._txn_manager
    coordinator = await sender._find_coordinator(CoordinationType.TRANSACTION, manager.transactional_id)
    group_coordinator = await sender._find_coordinator(CoordinationType.GROUP, group)
    same = bool(group_coordinator == coordinator)
    requests = [
        AddPartitionsToTxnHandler(sender, partitions).create_request(),
        AddOffsetsToTxnHandler(sender, group).create_request(),
        *([_commit_request(manager, group, offsets)] if same else []),
    ]
    # aiokafka must know of both even if the requests are interrupted: otherwise an abort would send no request.
    manager._txn_partitions.update(partitions)
    manager._txn_consumer_group = group
    sends = (producer.client.send(coordinator, each, group=ConnectionGroup.COORDINATION) for each in requests)
    responses = await asyncio.gather(*sends, return_exceptions=True)
    if all(map(_is_accepted, responses)):
        return same
    manager._txn_partitions.clear()
    manager._txn_consumer_group = None
    return False


def _commit_request(manager: Any, group: str, offsets: Mapping[TopicPartition, int]) -> TxnOffsetCommitRequest:
    topics: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for tp, offset in offsets.items():
        topics[tp.topic].append((tp.partition, offset, ""))
    return TxnOffsetCommitRequest(
        transactional_id=manager.transactional_id,
        group_id=group,
        producer_id=manager.producer_id,
        producer_epoch=manager.producer_epoch,
        topics=list(topics.items()),
    )


def _is_accepted(response: Any) -> bool:
    """Return whether a response has no error code other than 0."""
    if isinstance(response, BaseException):
        return False
    if hasattr(response, "errors"):
        return all(code == 0 for _, partitions in response.errors for _, code in partitions)
    return bool(response.error_code == 0)
