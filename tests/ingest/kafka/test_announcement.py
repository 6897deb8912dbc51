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

RESULTS, GROUP = TopicPartition("results", 0), "engines"
ADD_PARTITIONS, ADD_GROUP = "AddPartitionsToTxnRequest", "AddOffsetsToTxnRequest"


class Coordinator:
    """A producer in a transaction, and the coordinator that answers it. ``codes`` are error codes by request."""

    def __init__(self) -> None:
        self.codes: dict[str, int | Exception] = {}
        self.requests: list[str] = []
        self.client = self
        self._sender = SimpleNamespace(_find_coordinator=self._find, _retry_backoff=0.05)
        self._txn_manager = self._sender._txn_manager = TransactionManager("engines-batches-0", 60_000)
        self._txn_manager.set_pid_and_epoch(7, 0)
        self._txn_manager.begin_transaction()

    async def _find(self, kind: CoordinationType, _: str) -> int:
        assert kind == CoordinationType.TRANSACTION
        return 1

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

    async def announce(self) -> None:
        await announce(self, [RESULTS], GROUP)

    @property
    def known(self) -> tuple[set[TopicPartition], str | None]:
        """The partitions and the group that aiokafka regards as added to the transaction."""
        return set(self._txn_manager._txn_partitions), self._txn_manager._txn_consumer_group


async def test_partitions_and_group_are_added_in_one_write() -> None:
    coordinator = Coordinator()
    task = asyncio.create_task(coordinator.announce())
    while not coordinator.requests:
        await asyncio.sleep(0)
    assert coordinator.requests == [ADD_PARTITIONS, ADD_GROUP]
    await task
    assert coordinator.known == ({RESULTS}, GROUP)
    assert not coordinator._txn_manager.partitions_to_add()


async def test_no_offsets_are_sent_while_the_broker_writes_the_markers_of_the_previous_transaction() -> None:
    """The broker would commit such offsets in the previous transaction, before the records are written."""
    coordinator = Coordinator()
    coordinator.codes = dict.fromkeys((ADD_PARTITIONS, ADD_GROUP), ConcurrentTransactions.errno)
    await coordinator.announce()
    assert coordinator.requests == [ADD_PARTITIONS, ADD_GROUP]


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (ADD_PARTITIONS, ConcurrentTransactions.errno),
        (ADD_GROUP, InvalidProducerEpoch.errno),
        (ADD_GROUP, KafkaConnectionError()),
    ],
)
async def test_aiokafka_repeats_both_requests_if_one_of_them_is_refused(refused: str, code: int | Exception) -> None:
    coordinator = Coordinator()
    coordinator.codes[refused] = code
    await coordinator.announce()
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
