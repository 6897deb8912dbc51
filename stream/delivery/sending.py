"""The sender of alerts to one receiver.

Each receiver has its own queue and workers, so that a slow receiver does not delay deliveries to other receivers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable

from ingest.contract.codec import encode_json
from ingest.contract.records import Alert, Delivery
from ingest.contract.topics import DELIVERIES
from ingest.kafka.log import Outgoing
from ingest.runtime import logs
from ingest.runtime.clock import Clock
from ingest.site import ReceiverConfig
from stream.delivery.pending import AlertPosition, DeliveryTask, PendingDeliveries
from stream.delivery.schedule import verdict_after
from stream.delivery.webhook import Deliverer

_log = logs.get("stream.dispatch")

CONCURRENT = 8
"""Maximum number of concurrent delivery attempts at one receiver. Eight attempts drain a backlog quickly, and do not
overload a small receiver."""
MAX_IDLE_S = 1.0
"""Maximum time in seconds between two checks for due deliveries."""


class ReceiverSender:
    """Delivers the alerts in ``pending`` to one receiver.

    ``write`` is called with each receipt. ``read_again`` reads an alert that is not held in memory, and returns None
    if retention has deleted the alert. ``failed`` is called with the error that ends a worker.
    """

    def __init__(
        self,
        config: ReceiverConfig,
        make: Callable[[ReceiverConfig], Deliverer],
        write: Callable[[Outgoing], Awaitable[None]],
        read_again: Callable[[str, AlertPosition], Awaitable[Alert | None]],
        *,
        clock: Clock,
        chance: Callable[[], float],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.config = config
        self.pending = PendingDeliveries()
        self._make, self._write, self._clock, self._chance, self._failed = make, write, clock, chance, failed
        self._read_again = read_again
        self._deliverers = [make(config)]
        self._wake = asyncio.Event()
        self._stopping = False
        self._attempts: defaultdict[int, set[asyncio.Future[None]]] = defaultdict(set)
        self._workers = [asyncio.create_task(self._work()) for _ in range(CONCURRENT)]
        for worker in self._workers:
            worker.add_done_callback(self._on_done)

    @property
    def first_pause_s(self) -> float:
        """Pause before the first attempt to deliver a new alert, in seconds."""
        return self.config.retry_s[0] if self.config.retry_s else 0.0

    def wake(self) -> None:
        """Make the workers look for due deliveries now."""
        self._wake.set()

    def change(self, config: ReceiverConfig) -> None:
        """Use another configuration of the receiver from the next attempt on, and keep the queue of alerts."""
        self.config = config
        self._deliverers.append(self._make(config))

    async def settle(self, partition: int) -> None:
        """Wait until all running attempts for the alerts of a partition have ended and the receipts of these attempts
        are written."""
        if attempts := self._attempts[partition]:
            await asyncio.wait(attempts)

    async def stop(self) -> None:
        """Begin no more attempts, and return when the receipts of all running attempts are written."""
        self._stopping = True
        self._wake.set()
        await asyncio.gather(*self._workers)

    async def retire(self) -> None:
        """Stop the attempts and close the connections of a receiver that was removed from the configuration."""
        try:
            await self.stop()
        finally:
            await self.close()

    async def close(self) -> None:
        """Cancel the workers and close the connections."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        for deliverer in self._deliverers:
            await deliverer.close()

    async def _work(self) -> None:
        while not self._stopping:
            task = self.pending.due(self._clock.now_ns() / 1e9)
            if task:
                await self._track(task)
                continue
            self._wake.clear()
            wait_s = MAX_IDLE_S
            if self.pending.next_s is not None:
                wait_s = min(wait_s, max(0.0, self.pending.next_s - self._clock.now_ns() / 1e9))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    async def _track(self, task: DeliveryTask) -> None:
        attempts, finished = self._attempts[task.position.partition], asyncio.get_running_loop().create_future()
        attempts.add(finished)
        try:
            await self._attempt(task)
        finally:
            attempts.discard(finished)
            finished.set_result(None)

    async def _attempt(self, task: DeliveryTask) -> None:
        config = self.config
        alert = task.alert or await self._read_again(config.name, task.position)
        if alert is None:
            self.pending.finish(task)
            return
        result = await self._deliverers[-1].deliver(alert, self._clock.now_ns() / 1e9)
        now_ns = self._clock.now_ns()
        verdict = verdict_after(result, task.attempt, config.retry_s, self._chance(), now_ns / 1e9)
        next_s = now_ns / 1e9 + verdict.pause_s
        receipt = Delivery(
            alert=task.id,
            incident=alert.data.incident,
            receiver=config.name,
            state=verdict.state,
            attempt=task.attempt,
            status=result.status,
            reason=verdict.reason,
            captured_ns=alert.data.captured_ns,
            attempted_ns=now_ns,
            next_attempt_ns=round(next_s * 1e9) if verdict.state == "retrying" else None,
        )
        key = task.id.encode()
        await self._write(Outgoing(DELIVERIES, task.position.partition, encode_json(receipt), key=key))
        if verdict.state == "retrying":
            self.pending.again(task, next_s)
            return
        self.pending.finish(task)
        if verdict.state == "dead":
            _log.error("alert_dead", alert=task.id, receiver=config.name, reason=verdict.reason)

    def _on_done(self, worker: asyncio.Task[None]) -> None:
        error = None if worker.cancelled() else worker.exception()
        if error:
            self._failed(error)
