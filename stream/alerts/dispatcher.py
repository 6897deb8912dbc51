"""The dispatcher: delivers every alert to every receiver, until each pair has a final receipt.

All its state is in the log: the alerts in ``alerts`` without a final receipt in ``deliveries`` are due.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable, Iterable

from aiokafka import ConsumerRebalanceListener
from aiokafka import TopicPartition as KafkaPartition

from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Alert, Delivery
from ingest.contract.topics import ALERTS, DELIVERIES
from ingest.exceptions import CodecError, IngestError
from ingest.kafka import settings as kafka
from ingest.kafka.kafkalog import KafkaLog, from_consumer
from ingest.kafka.log import Outgoing
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import logs
from ingest.runtime.clock import Clock, SystemClock
from ingest.runtime.heartbeat import HeartbeatWriter
from ingest.site import ReceiverConfig
from stream.alerts.pending import DeliveryTask, PendingDeliveries
from stream.alerts.schedule import verdict_after
from stream.alerts.webhook import Deliverer

_log = logs.get("stream.dispatch")

NAME = "dispatch"
POLL_MS = 100
"""Maximum wait of one poll for alerts."""
CONCURRENT = 8
"""Concurrent attempts at one receiver: enough to drain a backlog, few enough for a small receiver."""
MAX_IDLE_S = 1.0
"""Maximum time between two checks for due deliveries and for the stop."""


class Dispatcher(ConsumerRebalanceListener):  # type: ignore[misc]
    """One member of the consumer group ``dispatch``. A slow or failed receiver does not delay the others.

    ``run`` raises LogUnavailable when a receipt cannot be written. The process must then end and restart.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        receivers: Iterable[ReceiverConfig],
        make: Callable[[ReceiverConfig], Deliverer],
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._settings, self._clock, self._chance = settings, clock or SystemClock(), chance
        self._receivers = {receiver.name: receiver for receiver in receivers}
        self._deliverers = {name: make(receiver) for name, receiver in self._receivers.items()}
        self._pending = {name: PendingDeliveries(name) for name in self._receivers}
        self._wake = {name: asyncio.Event() for name in self._receivers}
        self._log = KafkaLog(settings, f"dispatch-{os.getpid()}")
        self._consumer = kafka.consumer(settings, f"dispatch-{os.getpid()}", group=NAME)
        self._heartbeats = HeartbeatWriter(NAME, self._log.produce, self._waiting, self._clock, required=True)
        self._assigned = False
        self._error: IngestError | None = None
        self._broken = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver until ``stop`` is set, then finish the attempts that run."""
        self._consumer.subscribe([self._settings.topic(ALERTS)], listener=self)
        beating = self._heartbeats.run(lambda: "running" if self._assigned else "starting")
        tasks = [asyncio.create_task(self._intake()), asyncio.create_task(beating)]
        workers = [asyncio.create_task(self._work(name, stop)) for name in self._receivers for _ in range(CONCURRENT)]
        stopped = asyncio.create_task(stop.wait())
        broken = asyncio.create_task(self._broken.wait())
        try:
            done, _ = await asyncio.wait({stopped, broken, *tasks, *workers}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if self._error:
                raise self._error
            for event in self._wake.values():
                event.set()
            await asyncio.gather(*workers)
        finally:
            for task in (*tasks, *workers, stopped, broken):
                task.cancel()
            await asyncio.gather(*tasks, *workers, stopped, broken, return_exceptions=True)
            with contextlib.suppress(Exception):
                await self._consumer.stop()
            for deliverer in self._deliverers.values():
                await deliverer.close()
            await self._log.close()

    async def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        """Read back the receipts of the partitions, then read all their alerts again."""
        try:
            await self._take_over(assigned)
        except IngestError as error:  # aiokafka would log it and continue without the receipts
            self._error = error
            self._broken.set()

    async def _take_over(self, assigned: Iterable[KafkaPartition]) -> None:
        for tp in assigned:
            begin = (await self._log.beginnings(DELIVERIES))[tp.partition]
            end = (await self._log.ends(DELIVERIES))[tp.partition]
            async for record in self._log.read(DELIVERIES, tp.partition, begin, end):
                with contextlib.suppress(CodecError):
                    receipt = decode_json(Delivery, record.value)
                    if receipt.receiver in self._pending:
                        self._pending[receipt.receiver].receipt(receipt)
            self._consumer.seek(tp, (await self._log.beginnings(ALERTS))[tp.partition])
        self._assigned = True

    async def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        """Drop the deliveries of partitions that were revoked."""
        for tp in revoked:
            for pending in self._pending.values():
                pending.drop(tp.partition)

    async def _intake(self) -> None:
        await self._consumer.start()
        while True:
            batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            for records in batches.values():
                for record in records:
                    self._take(from_consumer(self._settings, record).value, record.partition)

    def _take(self, value: bytes, partition: int) -> None:
        try:
            alert = decode_json(Alert, value)
        except CodecError as error:
            _log.error("alert_unreadable", partition=partition, error=str(error))
            return
        now_s = self._clock.now_ns() / 1e9
        for name, receiver in self._receivers.items():
            self._pending[name].alert(alert, partition, receiver.retry_s[0] if receiver.retry_s else 0.0, now_s)
            self._wake[name].set()

    async def _work(self, name: str, stop: asyncio.Event) -> None:
        pending, wake = self._pending[name], self._wake[name]
        while not stop.is_set():
            task = pending.due(self._clock.now_ns() / 1e9)
            if task:
                await self._attempt(task, pending)
                continue
            wake.clear()
            wait_s = MAX_IDLE_S
            if pending.next_s is not None:
                wait_s = min(wait_s, max(0.0, pending.next_s - self._clock.now_ns() / 1e9))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), wait_s)

    async def _attempt(self, task: DeliveryTask, pending: PendingDeliveries) -> None:
        receiver = self._receivers[task.receiver]
        result = await self._deliverers[task.receiver].deliver(task.alert, self._clock.now_ns() / 1e9)
        now_ns = self._clock.now_ns()
        verdict = verdict_after(result, task.attempt, receiver.retry_s, self._chance(), now_ns / 1e9)
        next_s = now_ns / 1e9 + verdict.pause_s
        receipt = Delivery(
            alert=task.alert.id,
            incident=task.alert.data.incident,
            receiver=task.receiver,
            state=verdict.state,
            attempt=task.attempt,
            status=result.status,
            reason=verdict.reason,
            captured_ns=task.alert.data.captured_ns,
            attempted_ns=now_ns,
            next_attempt_ns=round(next_s * 1e9) if verdict.state == "retrying" else None,
        )
        await self._log.produce(
            Outgoing(DELIVERIES, task.partition, encode_json(receipt), key=task.alert.id.encode())
        )
        if verdict.state == "retrying":
            pending.again(task, next_s)
        elif verdict.state == "dead":
            _log.error("alert_dead", alert=task.alert.id, receiver=task.receiver, reason=verdict.reason)

    def _waiting(self) -> dict[str, float]:
        return {f"waiting_{name}": float(len(pending)) for name, pending in self._pending.items()}
