"""Tests of the requests that open a transaction, with a coordinator that answers as a test says."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.errors import ConcurrentTransactions, InvalidProducerEpoch, KafkaConnectionError
from aiokafka.producer.transaction_manager import TransactionManager

from ingest.kafka.announcement import announce

RESULTS, BATCHES, GROUP = TopicPartition("results", 0), TopicPartition("batches", 0), "engines"
ADD_PARTITIONS, ADD_GROUP, OFFSETS = "AddPartitionsToTxnRequest", "AddOffsetsToTxnRequest", "TxnOffsetCommitRequest"


class Coordinator:
    """A producer in a transaction, and the coordinator that answers it. ``codes`` are error codes by request."""

    def __init__(self, *, group_coordinator: int = 1) -> None:
        self.codes: dict[str, int | Exception] = {}
        self.requests: list[str] = []
        self.client = self
        self._coordinators = {CoordinationType.TRANSACTION: 1, CoordinationType.GROUP: group_coordinator}
        self._sender = SimpleNamespace(_find_coordinator=self._find, _retry_backoff=0.05)
        self._txn_manager = self._sender._txn_manager = TransactionManager("engines-batches-0", 60_000)
        self._txn_manager.set_pid_and_epoch(7, 0)
        self._txn_manager.begin_transaction()

    async def _find(self, kind: CoordinationType, _: str) -> int:
        return self._coordinators[kind]

    async def send(self, node: int, request: Any, *, group: Any) -> Any:
        assert node == 1
        name = type(request).__name__
        self.requests.append(name)
        await asyncio.sleep(0)
        code = self.codes.get(name, 0)
        if isinstance(code, Exception):
            raise code
        errors = [("topic", [(0, code)])]
        return SimpleNamespace(error_code=code) if name == ADD_GROUP else SimpleNamespace(errors=errors)

    async def announce(self) -> bool:
        return await announce(self, [RESULTS], GROUP, {BATCHES: 7})

    @property
    def known(self) -> tuple[set[TopicPartition], str | None]:
        """The partitions and the group that aiokafka regards as added to the transaction."""
        return set(self._txn_manager._txn_partitions), self._txn_manager._txn_consumer_group


async def test_all_requests_to_the_coordinator_are_sent_before_the_first_response() -> None:
    coordinator = Coordinator()
    assert await coordinator.announce()
    assert coordinator.requests == [ADD_PARTITIONS, ADD_GROUP, OFFSETS]
    assert coordinator.known == ({RESULTS}, GROUP)
    assert not coordinator._txn_manager.partitions_to_add()


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (ADD_PARTITIONS, ConcurrentTransactions.errno),
        (ADD_GROUP, InvalidProducerEpoch.errno),
        (OFFSETS, ConcurrentTransactions.errno),
        (OFFSETS, KafkaConnectionError()),
    ],
)
async def test_aiokafka_repeats_all_requests_if_one_of_them_is_refused(refused: str, code: int | Exception) -> None:
    coordinator = Coordinator()
    coordinator.codes[refused] = code
    assert not await coordinator.announce()
    assert coordinator.known == (set(), None)
    coordinator._txn_manager.maybe_add_partition_to_txn(RESULTS)
    assert coordinator._txn_manager.partitions_to_add() == {RESULTS}


async def test_an_interrupted_announcement_is_aborted_at_the_broker() -> None:
    coordinator = Coordinator()
    task = asyncio.create_task(coordinator.announce())
    while not coordinator.requests:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not coordinator._txn_manager.is_empty_transaction()  # aiokafka ends an empty transaction without a request


async def test_offsets_of_a_group_with_another_coordinator_are_left_to_aiokafka() -> None:
    coordinator = Coordinator(group_coordinator=2)
    assert not await coordinator.announce()
    assert coordinator.requests == [ADD_PARTITIONS, ADD_GROUP]
    assert coordinator.known == ({RESULTS}, GROUP)
