"""Tests of the deliveries that are due, and of the progress that a dispatcher commits. Without Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry

from ingest.contract.codec import decode, encode_json
from ingest.contract.records import Delivery, Heartbeat
from ingest.contract.topics import ALERTS, DELIVERIES, STATUS
from ingest.exceptions import LogUnavailable, TopicMismatch
from ingest.kafka.log import GroupCommit, LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.position import BEYOND_EVERY_END
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import ManualClock
from ingest.site import ReceiverConfig
from stream.alerts.alert import alert_id, make_alert
from stream.delivery.clients.webhook import LogDeliverer
from stream.delivery.dispatcher import Dispatcher
from stream.delivery.pending import FINISHED_KEPT, AlertPosition, DeliveryTask, PendingDeliveries, ReceiverPosition
from stream.delivery.progress import MAX_METADATA_CHARS, DispatchProgress, OwnedAlerts, take_over
from stream.delivery.sending import ReceiverSender
from stream.metrics import DispatchMetrics
from stream.runner.watchdog import CountingLog
from tests.stream.alerts.test_alerts import event

NOW_S = 1_800_000_000.0


def receipt(
    state: str, attempt: int, next_ns: int | None = None, *, number: int = 0, receiver: str = "r"
) -> Delivery:
    return Delivery(
        alert=alert_id(event(number)),
        incident="i",
        receiver=receiver,
        state=state,  # type: ignore[arg-type]
        attempt=attempt,
        attempted_ns=1,
        next_attempt_ns=next_ns,
    )


def opened(*receipts: Delivery, partitions: int = 2, alerts_end: int = 100) -> PendingDeliveries:
    pending = PendingDeliveries()
    for partition in range(partitions):
        pending.open(partition, 0)
    for offset, each in enumerate(receipts):
        pending.receipt(0, offset, each)
    for partition in range(partitions):
        pending.receipts_read(partition, alerts_end)
    return pending


def enter(pending: PendingDeliveries, number: int = 0, *, partition: int = 0, offset: int | None = None) -> None:
    position = AlertPosition(partition, number if offset is None else offset)
    pending.alert(make_alert(event(number), ()), position, 50, 0.0, NOW_S)


def taken(pending: PendingDeliveries, at_s: float = NOW_S) -> DeliveryTask:
    task = pending.due(at_s)
    assert task is not None
    return task


class TestPending:
    def test_a_new_alert_is_due_for_delivery_immediately_and_only_once(self) -> None:
        pending = opened()
        enter(pending)
        enter(pending)
        enter(pending, offset=1)
        task = taken(pending)
        assert (task.attempt, task.alert.id) == (1, alert_id(event()))
        assert pending.due(NOW_S) is None

    def test_deliveries_continue_after_the_last_receipt_when_the_dispatcher_restarts(self) -> None:
        pending = opened(
            receipt("retrying", 2, round((NOW_S + 60) * 1e9)), receipt("retrying", 1, round(NOW_S * 1e9))
        )
        enter(pending)
        assert pending.due(NOW_S + 59) is None
        assert taken(pending, NOW_S + 61).attempt == 3

    @pytest.mark.parametrize("state", ["delivered", "dead"])
    def test_an_alert_with_a_final_receipt_is_not_delivered_again(self, state: str) -> None:
        pending = opened(receipt(state, 4))
        enter(pending)
        assert len(pending) == 0
        assert pending.position(0) == ReceiverPosition(1, None)

    @pytest.mark.parametrize(
        "receipts",
        [
            [("delivered", 1), ("retrying", 2)],
            [("delivered", 1), ("dead", 2)],
            [("dead", 1), ("retrying", 2)],
            [("dead", 3), ("delivered", 2), ("dead", 3)],
        ],
    )
    def test_a_later_receipt_does_not_replace_the_final_receipt_of_an_alert(
        self, receipts: list[tuple[str, int]]
    ) -> None:
        pending = opened(*(receipt(state, attempt, round(NOW_S * 1e9)) for state, attempt in receipts))
        enter(pending)
        assert len(pending) == 0

    def test_an_alert_of_a_reassigned_partition_has_only_one_series_of_attempts(self) -> None:
        pending = opened()
        enter(pending)
        under_way = taken(pending)
        pending.drop(0)
        pending.open(0, 0)
        enter(pending)
        pending.again(under_way, NOW_S)
        pending.finish(under_way)
        assert [task.attempt for task in (pending.due(NOW_S + 1), pending.due(NOW_S + 1)) if task] == [1]
        assert pending.position(0) == ReceiverPosition(0, 50)

    def test_the_delivery_tasks_of_a_revoked_partition_are_dropped(self) -> None:
        pending = opened()
        enter(pending, 0)
        enter(pending, 1, partition=1)
        under_way = taken(pending)
        pending.drop(0)
        pending.again(under_way, NOW_S)
        assert taken(pending).alert.data.incident == "incident-1"
        assert pending.due(NOW_S) is None
        assert pending.position(0) is None

    def test_a_partition_about_to_be_revoked_starts_no_delivery_and_still_accepts_results(self) -> None:
        pending = opened()
        enter(pending, 0)
        enter(pending, 1)
        first = taken(pending)
        pending.hold(0)
        pending.finish(first)
        pending.again(first, NOW_S)
        assert pending.due(NOW_S) is None
        assert pending.position(0) == ReceiverPosition(1, 50)

    def test_the_position_of_a_receiver_is_its_first_unfinished_alert(self) -> None:
        pending = opened(receipt("retrying", 1, 1, number=1), alerts_end=3)
        for number in range(3):
            enter(pending, number)
        tasks = {task.position.offset: task for task in (taken(pending), taken(pending), taken(pending))}
        assert pending.position(0) == ReceiverPosition(0, 0)
        pending.finish(tasks[1])
        assert pending.position(0) == ReceiverPosition(0, 50)
        pending.finish(tasks[0])
        pending.finish(tasks[2])
        assert pending.position(0) == ReceiverPosition(3, None)

    def test_the_position_of_a_receiver_passes_alerts_whose_receipts_were_read_before_the_alerts(self) -> None:
        pending = opened(receipt("delivered", 1, number=3), receipt("delivered", 1, number=4), alerts_end=5)
        assert pending.position(0) == ReceiverPosition(0, 0)
        enter(pending, 3)
        assert pending.position(0) == ReceiverPosition(4, 1)
        enter(pending, 4)
        assert pending.position(0) == ReceiverPosition(5, None)

    def test_receipts_of_deleted_alerts_do_not_hold_back_the_position_of_a_receiver(self) -> None:
        assert opened(receipt("delivered", 1), alerts_end=0).position(0) == ReceiverPosition(0, None)

    def test_an_unreadable_alert_counts_as_finished_for_its_receivers(self) -> None:
        pending = opened(receipt("delivered", 1, number=3), alerts_end=5)
        pending.skip(AlertPosition(0, 4))
        assert pending.position(0) == ReceiverPosition(5, None)
        pending.skip(AlertPosition(7, 0))  # a partition that is not open
        assert pending.position(7) is None

    def test_the_memory_of_the_dispatcher_does_not_grow_with_finished_alerts(self) -> None:
        pending = opened()
        for number in range(FINISHED_KEPT + 100):
            position = AlertPosition(0, number)
            pending.alert(make_alert(event(0), ()).model_copy(update={"id": str(number)}), position, 0, 0.0, NOW_S)
            pending.finish(taken(pending))
        assert (len(pending._known), len(pending._finished)) == (0, FINISHED_KEPT)
        assert pending._partitions[0].open == {}


class TestProgress:
    def test_dispatch_progress_decoded_from_the_metadata_of_its_commit_equals_the_original(self) -> None:
        positions = {"a": ReceiverPosition(7, 3), "b": ReceiverPosition(12, None), "c": ReceiverPosition(9, 5)}
        progress = DispatchProgress.of(positions, 12, 20)
        assert (progress.offset, progress.receipts) == (7, 3)
        assert DispatchProgress.read(GroupCommit(progress.offset, progress.metadata())) == progress

    def test_the_progress_of_a_thousand_receivers_is_shortened_to_fit_into_the_commit_metadata(self) -> None:
        positions = {f"receiver-{n:03}": ReceiverPosition(8 if n else 12, None) for n in range(1000)}
        progress = DispatchProgress.of(positions, 12, 20)
        assert len(progress.metadata()) <= MAX_METADATA_CHARS
        again = DispatchProgress.read(GroupCommit(progress.offset, progress.metadata()))
        assert again.others
        assert again.receivers == {"receiver-000": 12}

    @pytest.mark.parametrize("metadata", ["", "{}", "[]", "null", '{"receipts":"x","receivers":{}}'])
    def test_an_offset_committed_by_another_tool_becomes_the_position_of_all_receivers(self, metadata: str) -> None:
        assert DispatchProgress.read(GroupCommit(5, metadata)) == DispatchProgress(5, 0, {}, others=True)


def config(name: str, *, history: bool = False) -> ReceiverConfig:
    return ReceiverConfig(name=name, url="http://receiver/", secret_file=Path("secret"), history=history)


def test_only_a_limited_number_of_waiting_alerts_is_kept_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream.delivery.pending.HELD_ALERTS", 2)
    pending = opened()
    for number in range(4):
        enter(pending, number)
    tasks = [taken(pending) for _ in range(4)]
    assert [task.id for task in tasks] == [alert_id(event(number)) for number in range(4)]
    assert [task.alert is not None for task in tasks] == [True, True, False, False]
    pending.again(tasks[2], NOW_S)
    assert (taken(pending).alert, len(pending)) == (None, 0)
    pending.finish(tasks[0])
    enter(pending, 4)
    assert taken(pending).alert is not None
    pending.drop(0)
    pending.open(0, 0)
    enter(pending, 5)
    enter(pending, 6)
    assert [taken(pending).alert is not None for _ in range(2)] == [True, True]


async def test_an_alert_that_is_neither_in_memory_nor_in_the_log_is_finished_without_a_receipt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stream.delivery.pending.HELD_ALERTS", 0)
    asked, finished = list[tuple[str, AlertPosition]](), asyncio.Event()

    async def expired(receiver: str, position: AlertPosition) -> None:
        asked.append((receiver, position))
        finished.set()

    async def write(_: Outgoing) -> None:
        pytest.fail("no attempt was made")

    async def nobody(_: object) -> str:
        return ""

    sender = ReceiverSender(
        config("r"),
        lambda _: LogDeliverer(),
        write,
        expired,
        nobody,
        clock=ManualClock(started_ns=round(NOW_S * 1e9)),
        chance=lambda: 0.5,
        failed=lambda error: pytest.fail(repr(error)),
    )
    sender.pending.open(0, 0)
    enter(sender.pending)
    sender.wake()
    await asyncio.wait_for(finished.wait(), 60)
    await sender.retire()
    assert asked == [("r", AlertPosition(0, 0))]
    assert sender.pending.position(0) == ReceiverPosition(1, None)


async def test_an_alerts_topic_created_again_ends_the_dispatcher_and_is_read_from_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dispatcher = Dispatcher(KafkaSettings(), [], lambda _: LogDeliverer())
    committed = []

    async def commit(offsets: dict[object, OffsetAndMetadata]) -> None:
        committed.extend(offsets.values())

    monkeypatch.setattr(dispatcher._consumer, "commit", commit)
    dispatcher._owned[0] = OwnedAlerts(5, 0)
    alert = encode_json(make_alert(event(), ()))
    await dispatcher._take(LogRecord(ALERTS, 0, 3, None, alert))  # fetched before the take-over
    await dispatcher._take(LogRecord(ALERTS, 0, 5, None, alert))
    with pytest.raises(LogUnavailable, match=r"alerts\[0\] delivered offset 0: expected 6 or more"):
        await dispatcher._take(LogRecord(ALERTS, 0, 0, None, alert))
    await dispatcher._commit()
    await dispatcher._close([])
    assert committed == [OffsetAndMetadata(BEYOND_EVERY_END, "")]
    owned = await take_over(MemoryLog(partitions=1), 0, GroupCommit(BEYOND_EVERY_END), [])
    assert owned.recreated


async def test_alerts_that_expire_while_the_dispatcher_reads_are_counted_and_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, registry, tp = MemoryLog(partitions=1), CollectorRegistry(), TopicPartition(ALERTS, 0)
    for number in range(9):
        await log.produce(Outgoing(*tp, encode_json(make_alert(event(number), ()))))
    fetched = [record async for record in log.read(ALERTS, 0, 0, 9)]
    log.forget(tp, 6)
    fetches = [fetched[:1], fetched[6:8], fetched[8:]]

    async def getmany(timeout_ms: int) -> dict[TopicPartition, list[LogRecord]]:
        if not fetches:
            raise LogUnavailable("no further record")
        return {tp: fetches.pop(0)}

    async def started(*_: object) -> None:
        pass

    dispatcher = Dispatcher(KafkaSettings(), [], lambda _: LogDeliverer(), metrics=DispatchMetrics(registry))
    dispatcher._owned[0] = owned = OwnedAlerts(0, 0)
    with monkeypatch.context() as patch:
        patch.setattr("stream.delivery.dispatcher.start", started)
        patch.setattr("stream.delivery.dispatcher.from_consumer", lambda _, record: record)
        patch.setattr(dispatcher._consumer, "getmany", getmany)
        patch.setattr(dispatcher, "_log", log)
        with pytest.raises(LogUnavailable, match="no further record"):
            await dispatcher._intake()
    await dispatcher._close([])
    assert owned.alerts_next == 9
    assert registry.get_sample_value("sightline_dispatch_expired_unread_total") == 5.0
    (beat,) = [
        decode(Heartbeat, record.value) async for record in log.read(STATUS, 0, 0, (await log.ends(STATUS))[0])
    ]
    assert [(gap.group, gap.first, gap.last) for gap in beat.expired_unread] == [("dispatch", 1, 5)]


async def test_the_dispatcher_closes_without_an_error_if_stopping_its_consumer_raises_cancelled_error() -> None:
    dispatcher = Dispatcher(KafkaSettings(), [], lambda _: LogDeliverer())

    async def cancelled() -> None:
        raise asyncio.CancelledError

    await dispatcher._consumer.stop()
    dispatcher._consumer.stop = cancelled
    await dispatcher._close([])


class TestTakeOver:
    async def log_of(self, alerts: int, receipts: list[Delivery]) -> CountingLog:
        log = MemoryLog(partitions=1)
        for number in range(alerts):
            await log.produce(Outgoing(ALERTS, 0, encode_json(make_alert(event(number), ()))))
        for each in receipts:
            await log.produce(Outgoing(DELIVERIES, 0, encode_json(each)))
        return CountingLog(log)

    async def owned(
        self, log: CountingLog, commit: GroupCommit | None, *receivers: ReceiverConfig
    ) -> tuple[OwnedAlerts, dict[str, PendingDeliveries]]:
        pending = {receiver.name: PendingDeliveries() for receiver in receivers}
        owned = await take_over(log, 0, commit, [(receiver, pending[receiver.name]) for receiver in receivers])
        async for record in log.read(ALERTS, 0, owned.alerts_next, (await log.ends(ALERTS))[0]):
            for each in pending.values():
                enter(each, record.offset)
        return owned, pending

    async def test_the_first_start_of_a_dispatcher_reads_all_receipts_and_repeats_no_delivered_alert(self) -> None:
        log = await self.log_of(5, [receipt("delivered", 1, number=n) for n in (0, 1, 3)])
        owned, pending = await self.owned(log, None, config("r"))
        assert owned == OwnedAlerts(0, 3)
        assert [taken(pending["r"]).position.offset for _ in range(len(pending["r"]))] == [2, 4]

    async def test_a_dispatcher_that_takes_over_a_partition_reads_only_receipts_of_unfinished_alerts(self) -> None:
        log = await self.log_of(303, [receipt("delivered", 1, number=n) for n in range(301)])
        progress = DispatchProgress(300, 299, {"r": 300})
        owned, pending = await self.owned(log, GroupCommit(300, progress.metadata()), config("r"))
        assert owned == OwnedAlerts(300, 301)
        assert [taken(pending["r"]).position.offset for _ in range(len(pending["r"]))] == [301, 302]
        assert log.records == 2 + 3  # receipts, alerts

    async def test_a_dispatcher_without_new_alerts_commits_the_same_delivery_state_as_the_previous_dispatcher(
        self,
    ) -> None:
        log = await self.log_of(2, [receipt("delivered", 1, number=n) for n in range(2)])
        commit = GroupCommit(1, DispatchProgress(1, 1, {"r": 1}).metadata())
        pending = PendingDeliveries()
        owned = await take_over(log, 0, commit, [(config("r"), pending)])
        position = pending.position(0)
        assert position is not None
        progress = DispatchProgress.of({"r": position}, owned.alerts_next, owned.receipts_end)
        _, after = await self.owned(log, GroupCommit(progress.offset, progress.metadata()), config("r"))
        assert len(after["r"]) == 0

    async def test_a_slow_receiver_does_not_make_other_receivers_get_alerts_again(self) -> None:
        log = await self.log_of(6, [receipt("delivered", 1, number=n, receiver="fast") for n in range(6)])
        progress = DispatchProgress(1, 4, {"slow": 1, "fast": 4})
        _, pending = await self.owned(log, GroupCommit(1, progress.metadata()), config("slow"), config("fast"))
        assert (len(pending["slow"]), len(pending["fast"])) == (5, 0)

    async def test_a_receiver_missing_in_the_committed_progress_gets_only_new_alerts(self) -> None:
        log = await self.log_of(4, [])
        commit = GroupCommit(3, DispatchProgress(3, 0, {"old": 3}).metadata())
        _, pending = await self.owned(log, commit, config("old"), config("new"), config("all", history=True))
        assert {name: len(each) for name, each in pending.items()} == {"old": 1, "new": 0, "all": 4}

    async def test_a_recreated_alerts_topic_is_read_from_its_beginning(self) -> None:
        log = await self.log_of(2, [])
        commit = GroupCommit(300, DispatchProgress(300, 299, {"r": 300}).metadata())
        owned, pending = await self.owned(log, commit, config("r"))
        assert (len(pending["r"]), owned.recreated) == (2, True)

    async def test_alerts_that_expired_before_a_receiver_had_them_are_counted_and_reported(self) -> None:
        log = await self.log_of(9, [])
        log.forget(TopicPartition(ALERTS, 0), 6)
        commit = GroupCommit(2, DispatchProgress(2, 0, {"slow": 2, "fast": 8}).metadata())
        owned, pending = await self.owned(log, commit, config("slow"), config("fast"))
        assert (owned.alerts_next, owned.expired) == (6, 4)
        assert {name: len(each) for name, each in pending.items()} == {"slow": 3, "fast": 1}
        (beat,) = [decode(Heartbeat, record.value) async for record in log.read(STATUS, 0, 0, 1)]
        assert [(gap.group, gap.first, gap.last) for gap in beat.expired_unread] == [("dispatch", 2, 5)]

    async def test_alerts_that_expired_after_every_receiver_had_them_are_no_loss(self) -> None:
        log = await self.log_of(9, [])
        log.forget(TopicPartition(ALERTS, 0), 6)
        commit = GroupCommit(2, DispatchProgress(2, 0, {"removed": 2, "fast": 8}).metadata())
        owned, _ = await self.owned(log, commit, config("fast"))
        assert owned.expired == 0
        assert await log.ends(STATUS) == {0: 0}

    async def test_an_alerts_topic_with_more_partitions_than_the_deliveries_topic_is_refused(self) -> None:
        log = MemoryLog(partitions=1)
        log.set_partitions(ALERTS, 2)
        with pytest.raises(TopicMismatch, match="deliveries has 1 partitions, expected 2 as alerts has"):
            await take_over(log, 1, None, [(config("r"), PendingDeliveries())])

    async def test_an_unreadable_receipt_is_skipped(self) -> None:
        log = await self.log_of(1, [])
        await log.produce(Outgoing(DELIVERIES, 0, b"{"))
        _, pending = await self.owned(log, None, config("r"))
        assert len(pending["r"]) == 1
