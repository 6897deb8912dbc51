"""The dispatcher: delivers every alert to every receiver, until a final receipt exists for each delivery.

All state of the dispatcher is in Kafka. An alert on the topic ``alerts`` is due until the topic ``deliveries`` has a
final receipt of the alert.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata
from prometheus_client import CollectorRegistry

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert
from ingest.contract.topics import ALERTS
from ingest.deadletter import parked
from ingest.exceptions import CodecError, LogUnavailable, StoppedInOutage
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import KafkaLog, from_consumer
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.outage import KafkaWatch, PatientLog
from ingest.kafka.position import BEYOND_EVERY_END, expired_between, report_expired
from ingest.kafka.settings import KafkaSettings
from ingest.kafka.writer import start
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from ingest.runtime.heartbeat import HeartbeatWriter, instance_name
from ingest.site import ReceiverConfig
from ingest.site.topic.store import follow
from ingest.site.topic.view import ConfigView
from stream.delivery.acknowledgements import Acknowledgements
from stream.delivery.clients.webhook import Deliverer
from stream.delivery.pending import AlertPosition
from stream.delivery.progress import GROUP, DispatchProgress, OwnedAlerts, require_deliveries, take_over
from stream.delivery.replay import replay_of
from stream.delivery.sending import ReceiverSender
from stream.metrics import DispatchMetrics

_log = logs.get("stream.dispatch")

POLL_MS = 100
"""Maximum time that one poll waits for alerts, in ms."""
COMMIT_S = 1.0
"""Seconds between two offset commits. If a dispatcher is killed, the next dispatcher reads the alerts and receipts
since the last commit again."""
READERS = 2
"""Maximum number of concurrent reads of alerts whose contents are not in memory. Each read needs its own connection
to Kafka, and KafkaLog keeps two connections for reads."""
SETTLE_S = 8.0
"""Maximum time in seconds that the revocation of a partition waits for running delivery attempts, so that the next
owner of the partition can read their receipts. The limit is less than the 12 s session timeout of the consumer group.
"""


class Dispatcher(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of the consumer group ``dispatch``. A slow or failed receiver does not delay other receivers.

    The alerts of a newly assigned partition are not delivered until the receipts of the partition have been read.
    While ``watch`` finds Kafka unavailable, receipts and reads wait. ``run`` raises LogUnavailable when a receipt
    cannot be written although Kafka answers; the process must then restart.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        receivers: Iterable[ReceiverConfig],
        make: Callable[[ReceiverConfig], Deliverer],
        *,
        metrics: DispatchMetrics | None = None,
        watch: KafkaWatch | None = None,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._make = settings, make
        self._metrics = metrics or DispatchMetrics(CollectorRegistry())
        self._clock, self._chance = clock or SystemClock(), chance
        self._first = tuple(receivers)
        self._senders: dict[str, ReceiverSender] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._owned: dict[int, OwnedAlerts] = {}
        self._committed: dict[int, OffsetAndMetadata] = {}
        self._changing = asyncio.Lock()
        self._reading = asyncio.Semaphore(READERS)
        self._takeover: asyncio.Task[None] | None = None
        self._joined = False
        self._error: BaseException | None = None
        self._broken = asyncio.Event()
        self.client_id = f"dispatch-{instance_name()}"
        self._watch = watch or KafkaWatch()
        self._log = PatientLog(settings, self.client_id, self._watch)
        self._acknowledgements = Acknowledgements(self._log, self._clock)
        self._consumer = kafka.consumer(settings, self.client_id, group=GROUP)
        self._heartbeats = HeartbeatWriter(GROUP, self._log.produce, self._waiting, self._clock)

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver alerts until ``stop`` is set, and finish the running delivery attempts before returning. Raise
        LogUnavailable or TopicMismatch."""
        try:
            await self._watch.unless_stopped(stop, require_deliveries(self._log))
        except BaseException:
            await self._close([])
            raise
        self._consumer.subscribe([self._settings.topic(ALERTS)], listener=self)
        for config in self._first:
            self._senders[config.name] = self._sender(config)
        work = (
            self._intake(),
            self._commit_for_ever(),
            self._heartbeats.run(lambda: "running" if self._owned else "starting"),
            follow(
                self._config_log,
                ConfigView({r.key: r for r in self._first}),
                self._on_config,
                outage_logged=lambda: self._watch.out,
            ),
        )
        tasks = [asyncio.create_task(each) for each in work]
        ends = [asyncio.create_task(stop.wait()), asyncio.create_task(self._broken.wait())]
        try:
            done, _ = await asyncio.wait({*tasks, *ends}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if self._error:
                raise self._error
            await self._finish()
        finally:
            await self._close([*tasks, *ends])

    async def _finish(self) -> None:
        """Finish the running delivery attempts, and commit. Give up if Kafka is unavailable."""
        try:
            await self._watch.finish(self._finish_attempts())
        except StoppedInOutage as error:
            _log.warning("attempts_not_finished", error=str(error))

    async def _finish_attempts(self) -> None:
        await asyncio.gather(*(sender.stop() for sender in self._senders.values()), *self._retiring)
        await self._commit()

    def unready_reason(self) -> str:
        """Return why the dispatcher is not ready. Return an empty string once the dispatcher has joined its group and
        has read all receipts."""
        if not self._joined:
            return f"the consumer group {GROUP} has not been joined"
        return "receipts are being read back" if self._takeover and not self._takeover.done() else ""

    async def apply(self, receivers: Sequence[ReceiverConfig]) -> None:
        """Deliver alerts only to ``receivers`` from now on. Raise LogUnavailable.

        A removed receiver gets no more alerts. A new receiver gets only new alerts, or all stored alerts if its entry
        has ``history = true``. A receiver with changed settings keeps its queue of alerts.
        """
        async with self._changing:
            wanted = {config.name: config for config in receivers}
            for name in self._senders.keys() - wanted.keys():
                sender = self._senders.pop(name)
                _log.info("receiver_removed", receiver=name, dropped_alerts=len(sender.pending))
                retiring = asyncio.create_task(sender.retire())
                self._retiring.add(retiring)
                retiring.add_done_callback(self._retiring.discard)
            for name, config in wanted.items():
                if name not in self._senders:
                    await self._add(config)
                elif config != self._senders[name].config:
                    self._senders[name].change(config)
                    _log.info("receiver_changed", receiver=name)
            await self._commit()  # a new receiver that no commit names would lose its first alerts in a kill

    async def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        """Start to take over newly assigned partitions. The alerts of a partition are not delivered until its
        receipts have been read.

        The take-over runs in a separate asyncio task, because aiokafka sends no heartbeats while
        ``on_partitions_assigned`` runs.
        """
        tps = list(assigned)
        self._joined = True
        self._consumer.pause(*tps)
        if tps:
            self._takeover = asyncio.create_task(self._take_over(tps))
            self._takeover.add_done_callback(self._on_done)

    async def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        """Release partitions: wait for the running delivery attempts of their alerts, commit offsets, and drop their
        queued alerts."""
        if self._takeover:
            self._takeover.cancel()
            await asyncio.wait({self._takeover})
            self._takeover = None
        partitions = [tp.partition for tp in revoked]
        for sender in self._senders.values():
            for partition in partitions:
                sender.pending.hold(partition)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await asyncio.gather(*(s.settle(p) for s in self._senders.values() for p in partitions))
        await self._commit()
        for partition in partitions:
            self._owned.pop(partition, None)
            self._committed.pop(partition, None)
            for sender in self._senders.values():
                sender.pending.drop(partition)

    async def _take_over(self, tps: Iterable[KafkaPartition]) -> None:
        async with self._changing:
            receivers = [(sender.config, sender.pending) for sender in self._senders.values()]
            for tp in tps:
                commit = await self._log.commit_of(GROUP, TopicPartition(ALERTS, tp.partition))
                owned = await take_over(self._log, tp.partition, commit, receivers)
                self._metrics.expired_unread.inc(owned.expired)
                self._metrics.topic_recreated.inc(owned.recreated)
                self._begin(tp.partition, owned)

    def _begin(self, partition: int, owned: OwnedAlerts) -> None:
        """Start to fetch the alerts of an owned partition, from the offset ``owned.alerts_next``."""
        tp = KafkaPartition(self._settings.topic(ALERTS), partition)
        self._owned[partition] = owned
        self._consumer.seek(tp, owned.alerts_next)
        self._consumer.resume(tp)

    async def _add(self, config: ReceiverConfig) -> None:
        firsts, ends = await self._log.beginnings(ALERTS), await self._log.ends(ALERTS)
        sender = self._senders[config.name] = self._sender(config)
        for partition, owned in self._owned.items():
            begin = firsts[partition] if config.history else ends[partition]
            sender.pending.open(partition, begin)
            if begin < owned.alerts_next:  # the other receivers ignore the alerts that they have taken
                self._begin(partition, OwnedAlerts(begin, owned.receipts_end))
        _log.info("receiver_added", receiver=config.name, history=config.history)

    async def _on_config(self, view: ConfigView) -> None:
        """Apply the receivers of the ``config`` topic.

        If the topic has no receivers although the present receivers were not removed, keep the present receivers.
        """
        receivers = view.config.of(ReceiverConfig)
        lost = [name for name, sender in self._senders.items() if sender.config.key not in view.removed]
        if lost and not receivers:
            _log.warning("receivers_missing_in_config_topic", running=len(lost), fix="apply the site file again")
            return
        await self.apply(receivers)

    def _config_log(self) -> KafkaLog:
        return KafkaLog(self._settings, f"dispatch-config-{os.getpid()}")

    async def _intake(self) -> None:
        await start(self._consumer, self._settings)
        while True:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            fetched_for = dict(self._owned)
            for kafka_tp, records in batches.items():
                gaps = []
                for record in records:
                    if self._owned.get(kafka_tp.partition) is not fetched_for.get(kafka_tp.partition):
                        break  # begun anew meanwhile: the rest is fetched again
                    if gap := await self._take(from_consumer(self._settings, record)):
                        gaps.append(gap)
                for gap in gaps:  # after all records: a rebalance may happen meanwhile
                    self._metrics.expired_unread.inc(await expired_between(self._log, GROUP, *gap))

    async def _take(self, record: LogRecord) -> tuple[TopicPartition, int, int] | None:
        """Add an alert to the queue of every receiver.

        If there is a gap in the offsets between the previous alert and this one, return the partition, the expected
        offset and the alert's offset. If there is no gap, return None.
        """
        owned = self._owned.get(record.partition)
        if owned and owned.taken and record.offset < owned.alerts_next:
            await self._leave_old_topic(record, owned)
        if owned is None or record.offset < owned.alerts_next:
            return None  # fetched before the take-over
        owned.taken = True
        expected = owned.alerts_next
        gap = (
            (TopicPartition(ALERTS, record.partition), expected, record.offset) if record.offset > expected else None
        )
        position = AlertPosition(record.partition, record.offset)
        try:
            alert = decode_json(Alert, record.value)
        except CodecError as error:
            _log.error("alert_unreadable", partition=record.partition, offset=record.offset, error=str(error))
            await self._log.produce(parked(record, GROUP, error))  # before the commit, so that none is missing
            owned.alerts_next = record.offset + 1
            for sender in self._senders.values():
                sender.pending.skip(position)
            return gap
        owned.alerts_next = record.offset + 1
        self._enter(alert, position, owned, record)
        return gap

    def _enter(self, alert: Alert, position: AlertPosition, owned: OwnedAlerts, record: LogRecord) -> None:
        """Add an alert to the queues of all receivers, or a replay to the queue of its receiver."""
        replay, only = replay_of(record.headers)
        now_s = self._clock.now_ns() / 1e9
        for name, sender in self._senders.items():
            if replay and name != only:
                sender.pending.skip(position)
                continue
            written_s = record.timestamp_ms / 1000.0
            pause_s = 0.0 if replay else sender.first_pause_s(now_s - written_s)
            expires_s = sender.expires_s(written_s)
            sender.pending.alert(alert, position, owned.receipts_end, pause_s, now_s, replay, expires_s)
            sender.wake()

    async def _leave_old_topic(self, record: LogRecord, owned: OwnedAlerts) -> None:
        """Make the next owner of the partition read ``alerts`` from the beginning, because the topic was created
        again.

        Raise LogUnavailable.
        """
        partition = record.partition
        del self._owned[partition]  # so that no other commit follows
        tp = KafkaPartition(self._settings.topic(ALERTS), partition)
        with contextlib.suppress(KafkaError):
            await self._consumer.commit({tp: OffsetAndMetadata(BEYOND_EVERY_END, "")})
        raise LogUnavailable(
            f"partition {ALERTS}[{partition}] delivered offset {record.offset}: expected {owned.alerts_next} or "
            "more. The topic was created again, and the dispatcher reads it from its beginning after a restart"
        )

    async def _write(self, receipt: Outgoing) -> None:
        position = await self._log.produce(receipt)
        if owned := self._owned.get(position.partition):
            owned.receipts_end = max(owned.receipts_end, position.offset + 1)

    async def _read_again(self, receiver: str, position: AlertPosition) -> Alert | None:
        """Read from Kafka an alert whose contents are not in memory.

        If retention has deleted the alert, report the loss and return None.
        """
        self._metrics.read_again.labels(receiver).inc()
        async with self._reading:
            records = self._log.read(ALERTS, position.partition, position.offset, position.offset + 1)
            async with aclosing(records):
                async for record in records:
                    return decode_json(Alert, record.value)
        await report_expired(
            self._log, GROUP, TopicPartition(ALERTS, position.partition), position.offset, position.offset + 1
        )
        self._metrics.expired_unread.inc()
        return None

    async def _commit_for_ever(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_S)
            await self._commit()

    async def _commit(self) -> None:
        """Commit the progress of each partition whose progress has changed.

        If the commit fails, the next call of this method commits the progress.
        """
        changed = {}
        for partition, owned in self._owned.items():
            positions = {
                name: position
                for name, sender in self._senders.items()
                if (position := sender.pending.position(partition)) is not None
            }
            progress = DispatchProgress.of(positions, owned.alerts_next, owned.receipts_end)
            commit = OffsetAndMetadata(progress.offset, progress.metadata())
            if self._committed.get(partition) != commit:
                changed[partition] = commit
        if not changed:
            return
        topic = self._settings.topic(ALERTS)
        try:
            await self._consumer.commit({KafkaPartition(topic, p): commit for p, commit in changed.items()})
        except KafkaError as error:
            _log.debug("progress_not_committed", error=repr(error))
        else:
            self._committed |= changed

    def _sender(self, config: ReceiverConfig) -> ReceiverSender:
        return ReceiverSender(
            config,
            self._make,
            self._write,
            self._read_again,
            self._acknowledgements.by,
            clock=self._clock,
            chance=self._chance,
            failed=self._fail,
        )

    def _on_done(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Make ``run`` raise ``error``. A rebalance callback calls this method, because aiokafka only logs an error
        that the callback raises."""
        self._error = self._error or error
        self._broken.set()

    def _waiting(self) -> dict[str, float]:
        """Update the gauges of the receivers, and return the gauges for the heartbeat."""
        metrics, found = self._metrics, dict[str, float]()
        gauges = {"waiting": metrics.waiting, "failing": metrics.failing, "disabled": metrics.disabled}
        for gauge in gauges.values():
            gauge.clear()
        for name, sender in self._senders.items():
            state = sender.throttle.state
            values = (len(sender.pending), state == "open", state == "disabled")
            for (kind, gauge), value in zip(gauges.items(), values, strict=True):
                gauge.labels(name).set(value)
                found[f"{kind}_{name}"] = float(value)
        return found

    async def _close(self, tasks: Sequence[asyncio.Task[object]]) -> None:
        every = [*tasks, *self._retiring, *([self._takeover] if self._takeover else [])]
        for task in every:
            task.cancel()
        await asyncio.gather(*every, return_exceptions=True)
        # In a task of its own: without a broker, aiokafka's stop raises the CancelledError of its own fetch task.
        await asyncio.gather(self._consumer.stop(), return_exceptions=True)
        for sender in self._senders.values():
            await sender.close()
        await self._log.close()
