"""Deliveries through kills and beside a dead receiver, in memory: ``benchmarks.delivery`` measures both on Kafka."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Alert, Delivery
from ingest.contract.topics import ALERTS, DELIVERIES
from ingest.kafka.log import GroupCommit, LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.kafka.settings import KafkaSettings
from ingest.runtime.clock import ManualClock
from ingest.site import ReceiverConfig
from stream.alerts.alert import alert_id, make_alert
from stream.delivery.clients.webhook import Deliverer
from stream.delivery.dispatcher import Dispatcher
from stream.delivery.pending import AlertPosition, PendingDeliveries, ReceiverPosition
from stream.delivery.progress import DispatchProgress, OwnedAlerts, take_over
from stream.delivery.schedule import AttemptResult
from stream.delivery.sending import CONCURRENT, ReceiverSender
from tests.stream.alerts.test_alerts import event
from tests.stream.delivery.senderrig import NOW_S

ALERTS_RAISED, KILLS = 300, 20
FAILED_SHARE = 0.3


def config(name: str = "r", **fields: object) -> ReceiverConfig:
    usual = {"name": name, "url": "http://receiver/", "secret_file": Path("s"), "retry_s": (0,) * 12, "history": True}
    return ReceiverConfig.model_validate(usual | fields)


class FlakyReceiver:
    """Fails some posts at random. ``accepted`` counts the accepted posts of each alert."""

    def __init__(self, seed: int) -> None:
        self.accepted: Counter[str] = Counter()
        self._random = random.Random(seed)

    def deliverer(self, _: ReceiverConfig) -> Deliverer:
        return self

    async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
        await asyncio.sleep(0)
        if self._random.random() < FAILED_SHARE:
            return AttemptResult(self._random.choice([500, 429, None]), "flaky")
        self.accepted[alert.id] += 1
        await asyncio.sleep(0)  # a kill between the post and its receipt
        return AttemptResult(204)

    async def close(self) -> None:
        pass


async def receipts_of(log: MemoryLog) -> list[Delivery]:
    end = (await log.ends(DELIVERIES))[0]
    return [decode_json(Delivery, record.value) async for record in log.read(DELIVERIES, 0, 0, end)]


class KilledDispatcher:
    """A dispatcher of one partition and one receiver that is killed, and taken over by the next one."""

    def __init__(self, log: MemoryLog, receiver: FlakyReceiver, clock: ManualClock) -> None:
        self.log, self.receiver, self.clock = log, receiver, clock
        self.commit: GroupCommit | None = None
        self._changed = asyncio.Event()

    async def live(self, receipts: int, *, commit: bool) -> None:
        """Deliver alerts until this number of receipts is written or nothing waits, and end without warning."""
        own = config()
        sender = ReceiverSender(
            own,
            self.receiver.deliverer,
            self._write,
            self._read_again,
            self._nobody,
            clock=self.clock,
            chance=lambda: 0.0,
            failed=lambda error: pytest.fail(repr(error)),
        )
        owned = await take_over(self.log, 0, self.commit, [(own, sender.pending)])
        async for record in self.log.read(ALERTS, 0, owned.alerts_next, (await self.log.ends(ALERTS))[0]):
            alert, position = decode_json(Alert, record.value), AlertPosition(0, record.offset)
            sender.pending.alert(alert, position, owned.receipts_end, 0.0, self.clock.now_ns() / 1e9)
            owned.alerts_next = record.offset + 1
        sender.wake()
        goal = (await self.log.ends(DELIVERIES))[0] + receipts
        while (await self.log.ends(DELIVERIES))[0] < goal and (len(sender.pending) or any(sender._attempts.values())):
            self.clock.advance(1.0)  # a circuit that has opened by chance closes again
            sender.wake()
            await asyncio.sleep(0)
        position_now = sender.pending.position(0)
        await sender.close()
        if commit and position_now:
            progress = DispatchProgress.of({own.name: position_now}, owned.alerts_next, owned.receipts_end)
            self.commit = GroupCommit(progress.offset, progress.metadata())

    async def _write(self, outgoing: Outgoing) -> None:
        await asyncio.sleep(0)
        await self.log.produce(outgoing)

    async def _read_again(self, _: str, position: AlertPosition) -> Alert | None:
        async for record in self.log.read(ALERTS, position.partition, position.offset, position.offset + 1):
            return decode_json(Alert, record.value)
        return None

    async def _nobody(self, _: Alert) -> str:
        return ""


@pytest.mark.parametrize("seed", range(3))
async def test_no_alert_is_lost_at_a_flaky_receiver_while_dispatchers_are_killed(seed: int) -> None:
    log, receiver = MemoryLog(partitions=1), FlakyReceiver(seed)
    for number in range(ALERTS_RAISED):
        await log.produce(Outgoing(*TopicPartition(ALERTS, 0), encode_json(make_alert(event(number), ()))))
    dispatcher = KilledDispatcher(log, receiver, ManualClock(started_ns=round(NOW_S * 1e9)))
    chance = random.Random(seed)
    for _ in range(KILLS):
        await dispatcher.live(chance.randrange(1, 20), commit=chance.random() < 0.7)
    await dispatcher.live(10**9, commit=True)
    receipts = await receipts_of(log)
    final = {one.alert: one.state for one in receipts if one.state != "retrying"}
    ids = {alert_id(event(number)) for number in range(ALERTS_RAISED)}
    assert final.keys() == ids
    assert {alert for alert, state in final.items() if state == "delivered"} <= receiver.accepted.keys() <= ids
    dead = {alert for alert, state in final.items() if state == "dead"}
    assert ids - receiver.accepted.keys() <= dead
    repeats = receiver.accepted.total() - len(receiver.accepted)
    assert repeats <= CONCURRENT * (KILLS + 1)


async def test_a_receiver_that_never_answers_does_not_delay_the_other_receivers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    posts: Counter[str] = Counter()
    done = asyncio.Event()

    class Client:
        def __init__(self, name: str) -> None:
            self._name = name

        async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
            posts[self._name] += 1
            if self._name == "dead":
                await asyncio.Event().wait()
            if sum(count for name, count in posts.items() if name != "dead") == 9 * 50:
                done.set()
            return AttemptResult(204)

        async def close(self) -> None:
            pass

    dispatcher = Dispatcher(KafkaSettings(), [], lambda receiver: Client(receiver.name))
    monkeypatch.setattr(dispatcher, "_log", MemoryLog(partitions=1))
    dispatcher._owned[0] = OwnedAlerts(0, 0)
    for name in ("dead", *(f"r{number}" for number in range(9))):
        dispatcher._senders[name] = dispatcher._sender(config(name))
        dispatcher._senders[name].pending.open(0, 0)
    for number in range(50):
        await dispatcher._take(LogRecord(ALERTS, 0, number, None, encode_json(make_alert(event(number), ()))))
    async with asyncio.timeout(60):
        await done.wait()
    await dispatcher._close([])
    assert posts["dead"] == CONCURRENT


def test_a_second_restart_reads_the_receipts_after_an_alert_in_flight_at_the_first_restart() -> None:
    """The alert at offset 0 was in flight at the first kill and fails afterwards. Those after it are delivered."""
    pending = PendingDeliveries()
    pending.open(0, 0)
    for number in (1, 2):
        delivered = {"alert": alert_id(event(number)), "incident": "i", "receiver": "r", "attempted_ns": 1}
        pending.receipt(0, number, Delivery.model_validate({**delivered, "state": "delivered", "attempt": 1}))
    pending.receipts_read(0, 3)
    for number in range(3):
        pending.alert(make_alert(event(number), ()), AlertPosition(0, number), 10, 0.0, NOW_S)
    assert pending.position(0) == ReceiverPosition(0, 1)
    task = pending.due(NOW_S)
    assert task is not None
    pending.finish(task)
    assert pending.position(0) == ReceiverPosition(3, None)
