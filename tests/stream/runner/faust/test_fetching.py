"""Tests of fetches during a rebalance, on the real subscription state of aiokafka, without a broker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.structs import TopicPartition as KafkaPartition
from aiokafka.util import commit_structure_validate
from faust.types import TP

from stream.runner.acks import FetchNumber
from stream.runner.faust.driver import NoReadOffsets
from stream.runner.faust.fetching import ConsumerThread

P0, P1 = TP("frames", 0), TP("frames", 1)


class FakeConsumer:
    """The parts of an aiokafka consumer that a fetch uses. A fetch returns the offsets in ``ready`` and advances."""

    def __init__(self) -> None:
        self._subscription = SubscriptionState(asyncio.get_running_loop())
        self._subscription.subscribe({"frames"})
        self._fetcher = SimpleNamespace(
            _closed=False, _subscriptions=self._subscription, fetched_records=self._fetched_records
        )
        self._closed = False
        self.ready: dict[TP, list[int]] = {}
        self.meanwhile: Callable[[], None] = lambda: None
        self.asked: list[set[TP]] = []
        self.commits: list[dict[TP, int]] = []

    def assign(self, *tps: TP) -> None:
        self._subscription.assign_from_subscribed({KafkaPartition(*tp) for tp in tps})

    def seek(self, tp: TP, offset: int) -> None:
        self._subscription.seek(KafkaPartition(*tp), offset)

    def position(self, tp: TP) -> int | None:
        position: int | None = self.state(tp)._position
        return position

    def assignment(self) -> set[KafkaPartition]:
        return self._subscription.assigned_partitions()

    async def commit(self, offsets: dict[KafkaPartition, Any]) -> None:
        commit_structure_validate(offsets)
        self.commits.append({TP(*tp): offset.offset for tp, offset in offsets.items()})

    def state(self, tp: TP) -> Any:
        return self._subscription.subscription.assignment.state_value(KafkaPartition(*tp))

    async def _fetched_records(self, partitions: set[TP], timeout: float, max_records: int) -> dict[TP, list[Any]]:
        self.asked.append(set(partitions))
        self.meanwhile()
        found = {tp: offsets for tp, offsets in self.ready.items() if tp in partitions}
        for tp, offsets in found.items():
            self.seek(tp, offsets[-1] + 1)
        return {tp: [SimpleNamespace(offset=offset) for offset in offsets] for tp, offsets in found.items()}


class ThreadRig:
    """A consumer thread that is never started; its methods are called in the event loop of the test."""

    def __init__(self) -> None:
        conf = SimpleNamespace(
            producer_partitioner=None, stream_processing_timeout=0.0, broker_commit_livelock_soft_timeout=0.0
        )
        app = SimpleNamespace(conf=conf)
        consumer = SimpleNamespace(
            app=app, transport=SimpleNamespace(app=app), flow_active=True, RebalanceListener=lambda thread: None
        )
        self.thread = ConsumerThread(consumer)
        self.client = self.thread._consumer = FakeConsumer()

    async def fetch(self, *active: TP) -> dict[TP, list[tuple[FetchNumber, list[int]]]]:
        """Fetch once, and return the fetch number and the offsets of each chunk."""
        found = await self.thread._fetch_records(self.client, set(active), timeout=0.0, max_records=64)
        return {
            tp: [(chunk.first, [record.offset for record in chunk.records]) for chunk in chunks]
            for tp, chunks in found.items()
        }


@pytest.fixture
async def rig() -> AsyncIterator[ThreadRig]:
    rig = ThreadRig()
    yield rig
    rig.thread.thread_loop.close()


async def test_a_partition_is_fetched_only_after_its_loop_has_called_begin(rig: ThreadRig) -> None:
    rig.client.assign(P0, P1)
    rig.client.ready = {P0: [5, 6], P1: [0]}
    assert await rig.fetch(P0, P1) == {}
    assert await rig.thread._begin(P0, 5, 1)
    assert await rig.fetch(P0, P1) == {P0: [(FetchNumber(1, 0), [5, 6])]}
    assert rig.client.asked == [{P0}]


async def test_a_partition_is_fetched_from_the_position_of_its_loop(rig: ThreadRig) -> None:
    rig.client.assign(P0)
    rig.client.seek(P0, 64)
    assert await rig.thread._begin(P0, 0, 1)
    assert rig.client.position(P0) == 0


async def test_records_are_numbered_without_gaps_over_all_fetches_of_an_assignment(rig: ThreadRig) -> None:
    rig.client.assign(P0)
    await rig.thread._begin(P0, 0, 4)
    rig.client.ready = {P0: [0, 7]}
    await rig.fetch(P0)
    rig.client.ready = {P0: [100]}
    assert await rig.fetch(P0) == {P0: [(FetchNumber(4, 2), [100])]}
    assert (rig.thread.fetched(P0, 4), rig.thread.fetched(P0, 3), rig.thread.fetched(P1, 4)) == (3, 0, 0)


async def test_a_fetch_that_ends_after_a_new_assignment_seeks_back_to_its_first_record(rig: ThreadRig) -> None:
    rig.client.assign(P0)
    await rig.thread._begin(P0, 0, 1)
    rig.client.ready = {P0: [3, 4]}
    rig.client.meanwhile = lambda: rig.client.assign(P0, P1)
    assert await rig.fetch(P0) == {}
    assert rig.client.position(P0) == 3
    rig.client.meanwhile = lambda: None
    assert await rig.fetch(P0) == {}  # not begun in this assignment
    await rig.thread._begin(P0, 0, 2)
    assert await rig.fetch(P0) == {P0: [(FetchNumber(2, 0), [3, 4])]}


async def test_begin_returns_false_for_a_partition_of_another_group_member(rig: ThreadRig) -> None:
    assert not await rig.thread._begin(P0, 0, 1)  # nothing was assigned yet
    rig.client.assign(P1)
    assert not await rig.thread._begin(P0, 0, 1)


async def test_the_number_of_unfetched_offsets_is_zero_until_the_position_and_the_log_end_are_known(
    rig: ThreadRig,
) -> None:
    client, rig.thread._consumer = rig.client, None
    assert rig.thread.unfetched(P0) == 0  # not started
    rig.thread._consumer = client
    assert rig.thread.unfetched(P0) == 0  # not assigned
    client.assign(P0)
    assert rig.thread.unfetched(P0) == rig.thread.unfetched(P1) == 0  # no position yet; not assigned
    client.seek(P0, 3)
    assert rig.thread.unfetched(P0) == 0  # the end at the broker is unknown
    client.state(P0).lso = 10
    assert rig.thread.unfetched(P0) == 7
    client.state(P0).await_reset(-2)
    assert rig.thread.unfetched(P0) == 0
    client._subscription.unsubscribe()
    assert rig.thread.unfetched(P0) == 0


async def test_offsets_of_partitions_of_another_group_member_are_not_committed(rig: ThreadRig) -> None:
    rig.client.assign(P1)
    assert await rig.thread._commit({P0: 5, P1: 6})
    assert not await rig.thread._commit({P0: 5})
    assert rig.client.commits == [{P1: 6}]
    assert not rig.thread.crashed


async def test_an_empty_fetch_of_a_group_member_without_partitions_resets_its_fetch_idle_time(rig: ThreadRig) -> None:
    rig.client.assign()
    rig.client._subscription._last_fetch_ended -= 1000.0
    assert await rig.fetch() == {}
    assert rig.client._subscription.fetcher_idle_time < 1000.0


def test_faust_s_map_of_read_offsets_stays_empty() -> None:
    offsets = NoReadOffsets()
    offsets[P0] = 64  # Faust sets it for a record that it drops with a revoked partition
    assert offsets[P0] is None
