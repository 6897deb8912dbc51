"""The sender of alerts to one receiver.

Each receiver has its own queue and workers, so that a slow receiver does not delay deliveries to other receivers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from ingest.contract.codec import encode_json
from ingest.contract.records import Alert, Delivery
from ingest.contract.topics import DELIVERIES
from ingest.kafka.log import Outgoing
from ingest.runtime import logs
from ingest.runtime.clock import Clock
from ingest.site import ReceiverConfig
from stream.delivery.clients.webhook import Deliverer
from stream.delivery.filters import ReceiverFilter
from stream.delivery.pending import AlertPosition, DeliveryTask, PendingDeliveries
from stream.delivery.schedule import AttemptResult, Verdict, verdict_after
from stream.delivery.throttle import LAST_PAUSE_S, CircuitChange, ReceiverThrottle

_log = logs.get("stream.dispatch")

CONCURRENT = 8
"""Maximum number of concurrent delivery attempts at one receiver. Eight attempts drain a backlog quickly, and do not
overload a small receiver."""
MAX_IDLE_S = 1.0
"""Maximum time in seconds between two checks for due deliveries."""


class ReceiverSender:
    """Delivers the alerts in ``pending`` to one receiver.

    ``write`` is called with each receipt. ``read_again`` reads an alert that is not held in memory, and returns None
    if retention has deleted the alert. ``acknowledged_by`` returns who has acknowledged an alert's incident, empty if
    nobody has. ``failed`` is called with the error that ends a worker.
    """

    def __init__(
        self,
        config: ReceiverConfig,
        make: Callable[[ReceiverConfig], Deliverer],
        write: Callable[[Outgoing], Awaitable[None]],
        read_again: Callable[[str, AlertPosition], Awaitable[Alert | None]],
        acknowledged_by: Callable[[Alert], Awaitable[str]],
        *,
        clock: Clock,
        chance: Callable[[], float],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.pending = PendingDeliveries()
        self._make, self._write, self._clock, self._chance, self._failed = make, write, clock, chance, failed
        self._read_again = read_again
        self._deliverer = make(config)
        self._closing: set[asyncio.Task[None]] = set()
        self._acknowledged_by = acknowledged_by
        self._use(config)
        self._wake = asyncio.Event()
        self._stopping = False
        self._attempts: defaultdict[int, set[asyncio.Future[None]]] = defaultdict(set)
        self._workers = [asyncio.create_task(self._work()) for _ in range(CONCURRENT)]
        for worker in self._workers:
            worker.add_done_callback(self._on_done)

    def first_pause_s(self, waited_s: float) -> float:
        """Return the pause before the first attempt to deliver an alert, in seconds.

        ``waited_s`` is the time since the alert was written, which counts towards the time until its escalation.
        """
        pauses = self.config.retry_s
        return (pauses[0] if pauses else 0.0) + max(0.0, self.config.escalate_after_s - max(0.0, waited_s))

    def expires_s(self, written_s: float) -> float:
        """Return the Unix time in seconds until which an alert is retried while the receiver fails.

        ``written_s`` is the Unix time at which the alert was written.
        """
        return written_s + self.config.escalate_after_s + max(sum(self.config.retry_s), 2.0 * LAST_PAUSE_S)

    def wake(self) -> None:
        """Make the workers look for due deliveries now."""
        self._wake.set()

    def change(self, config: ReceiverConfig) -> None:
        """Use another configuration of the receiver from the next attempt on, and keep the queue of alerts.

        The change also enables a receiver that was disabled.
        """
        former, self._deliverer = self._deliverer, self._make(config)
        running = [attempt for attempts in self._attempts.values() for attempt in attempts]
        closing = asyncio.create_task(_close_after(running, former))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._use(config)
        self.wake()

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
        self._stopping = True  # in Python 3.11, wait_for loses a cancellation at the moment of its wake-up
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await asyncio.gather(*self._closing)
        await self._deliverer.close()

    async def _work(self) -> None:
        while not self._stopping:
            now_s = self._clock.now_ns() / 1e9
            wait_s = self.throttle.wait_s(now_s)
            if wait_s and self.throttle.state == "open" and (task := self.pending.expired(now_s)):
                await self._track(task, self._give_up(task))
                continue
            if not wait_s and (task := self.pending.due(now_s)):
                await self._track(task, self._attempt(task, self.throttle, self.throttle.begin(now_s)))
                continue
            self._wake.clear()
            if not wait_s and self.pending.next_s is not None:
                wait_s = max(0.0, self.pending.next_s - now_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(MAX_IDLE_S, wait_s or MAX_IDLE_S))

    async def _track(self, task: DeliveryTask, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` for a task, so that ``settle`` waits for it."""
        attempts, finished = self._attempts[task.position.partition], asyncio.get_running_loop().create_future()
        attempts.add(finished)
        try:
            await work
        finally:
            attempts.discard(finished)
            finished.set_result(None)

    async def _give_up(self, task: DeliveryTask) -> None:
        """Write the final receipt of an alert that could not be delivered in time."""
        alert = task.alert or await self._read_again(self.config.name, task.position)
        if alert is None:
            self.pending.finish(task)
            return
        if self._is_quiet(task, alert):
            return
        unsent = None if task.replay else await self._unsent(alert, self.throttle)
        reason = f"not delivered in the time of retry_s: the receiver fails since {self.throttle.since}"
        await self._conclude(task, alert, None, unsent or Verdict("dead", reason=reason))

    async def _attempt(self, task: DeliveryTask, throttle: ReceiverThrottle, probe: bool) -> None:
        result, unsent = None, None
        try:
            alert = task.alert or await self._read_again(self.config.name, task.position)
            if alert is None:
                self.pending.finish(task)
                return
            if self._is_quiet(task, alert):
                return
            if not task.replay:
                unsent = await self._unsent(alert, throttle)
            if unsent is None:
                result = await self._deliverer.deliver(alert, self._clock.now_ns() / 1e9)
        finally:
            self._note(throttle, throttle.end(result, self._clock.now_ns() / 1e9, probe=probe))
        await self._conclude(task, alert, result, unsent)

    def _is_quiet(self, task: DeliveryTask, alert: Alert) -> bool:
        """Return whether an alert waits for the end of quiet hours, and if so, postpone its task.

        The retry time limit of the alert begins at the end of the quiet hours.
        """
        if task.replay or not (quiet_until_ns := self._filter.quiet_until_ns(alert, self._clock.now_ns())):
            return False
        quiet_until_s = quiet_until_ns / 1e9
        self.pending.postpone(task, quiet_until_s, self.expires_s(quiet_until_s))
        return True

    async def _unsent(self, alert: Alert, throttle: ReceiverThrottle) -> Verdict | None:
        """Return the final state of an alert that is not sent; None if the alert is sent."""
        if refusal := self._filter.refusal(alert):
            return Verdict("skipped", reason=refusal)
        if self.config.escalate_after_s and (by := await self._acknowledged_by(alert)):
            return Verdict("skipped", reason=f"acknowledged by {by}")
        if throttle.state == "disabled":
            return Verdict("dead", reason=f"disabled since {throttle.since}, when the receiver answered 410 (gone)")
        return None

    async def _conclude(
        self, task: DeliveryTask, alert: Alert, result: AttemptResult | None, verdict: Verdict | None
    ) -> None:
        """Write the receipt of an attempt, and schedule the next attempt if there is one."""
        config, now_ns = self.config, self._clock.now_ns()
        if verdict is None:
            result = result or AttemptResult(None)
            verdict = verdict_after(result, task.attempt, config.retry_s, self._chance(), now_ns / 1e9)
        next_s = now_ns / 1e9 + verdict.pause_s
        receipt = Delivery(
            alert=alert.id,
            incident=alert.data.incident,
            receiver=config.name,
            state=verdict.state,
            attempt=task.attempt,
            status=result.status if result else None,
            reason=verdict.reason,
            captured_ns=alert.data.captured_ns,
            attempted_ns=now_ns,
            next_attempt_ns=round(next_s * 1e9) if verdict.state == "retrying" else None,
            replay=task.replay,
        )
        key = alert.id.encode()
        await self._write(Outgoing(DELIVERIES, task.position.partition, encode_json(receipt), key=key))
        if verdict.state == "retrying":
            self.pending.again(task, next_s)
            return
        self.pending.finish(task)
        if verdict.state == "dead":
            _log.error("alert_dead", alert=alert.id, receiver=config.name, reason=verdict.reason)

    def _note(self, throttle: ReceiverThrottle, change: CircuitChange | None) -> None:
        """Log a change of the circuit's state, and let the workers look for due deliveries again."""
        if throttle is not self.throttle:
            return  # the configuration has changed meanwhile
        self.wake()
        if change is None:
            return
        fields = {"receiver": self.config.name, "after_s": round(change.after_s, 1)}
        if change.state == "open":
            _log.warning("receiver_fails", **fields, reason=change.reason, waiting=len(self.pending))
        elif change.state == "disabled":
            _log.error("receiver_disabled", **fields, reason=change.reason, fix="remove or change the receiver")
        else:
            _log.info("receiver_accepts_again", **fields)

    def _use(self, config: ReceiverConfig) -> None:
        self.config = config
        self._filter = ReceiverFilter(config)
        self.throttle = ReceiverThrottle(config.max_per_minute, self._chance, self._clock.now_ns() / 1e9)

    def _on_done(self, worker: asyncio.Task[None]) -> None:
        error = None if worker.cancelled() else worker.exception()
        if error:
            self._failed(error)


async def _close_after(attempts: Sequence[asyncio.Future[None]], deliverer: Deliverer) -> None:
    """Close a client that is replaced, when all attempts that may use it have ended."""
    if attempts:
        await asyncio.wait(attempts)
    await deliverer.close()
