"""Tests of the rate limit and the circuit breaker of a receiver, alone and in its sender. Without Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from ingest.contract.codec import decode_json
from ingest.contract.records import Alert, Delivery
from ingest.kafka.log import Outgoing
from ingest.runtime.clock import ManualClock
from ingest.site import ReceiverConfig
from stream.alerts.alert import alert_id, make_alert
from stream.delivery.pending import AlertPosition
from stream.delivery.schedule import AttemptResult
from stream.delivery.sending import CONCURRENT, ReceiverSender
from stream.delivery.throttle import FAILURES, LAST_PAUSE_S, ReceiverThrottle
from stream.delivery.webhook import Deliverer
from tests.stream.alerts.test_alerts import event

NOW_S = 1_800_000_000.0
OK, BROKEN, GONE = AttemptResult(204), AttemptResult(500), AttemptResult(410)


def throttle(per_minute: float = 0.0) -> ReceiverThrottle:
    return ReceiverThrottle(per_minute, lambda: 0.0, NOW_S)


def attempt(of: ReceiverThrottle, result: AttemptResult, now_s: float) -> str:
    """Make an attempt, and return the new state of the circuit, or an empty string without a change."""
    assert of.wait_s(now_s) == 0.0
    change = of.end(result, now_s, probe=of.begin(now_s))
    return change.state if change else ""


class TestThrottle:
    def test_consecutive_failures_open_the_circuit_and_one_success_closes_it(self) -> None:
        of, now_s = throttle(), NOW_S
        assert [attempt(of, BROKEN, now_s) for _ in range(FAILURES)] == [""] * (FAILURES - 1) + ["open"]
        pauses = []
        for _ in range(6):
            pauses.append(of.wait_s(now_s))
            now_s += pauses[-1]
            assert attempt(of, BROKEN, now_s) == ""
        assert pauses == [5.0, 10.0, 20.0, 40.0, LAST_PAUSE_S, LAST_PAUSE_S]
        assert attempt(of, OK, now_s + LAST_PAUSE_S) == "closed"
        assert of.wait_s(now_s + LAST_PAUSE_S) == 0.0

    def test_an_open_circuit_allows_one_attempt_at_a_time(self) -> None:
        of = throttle()
        late = of.begin(NOW_S)
        for _ in range(FAILURES):
            attempt(of, BROKEN, NOW_S)
        now_s = NOW_S + 5.0
        probe = of.begin(now_s)
        assert of.wait_s(now_s + 1000.0) == float("inf")
        assert of.end(BROKEN, now_s, probe=late) is None  # an attempt that began before the circuit opened
        assert of.wait_s(now_s) == float("inf")
        assert of.end(None, now_s, probe=probe) is None  # the alert was not sent at all
        assert of.wait_s(now_s) == 0.0

    def test_single_failures_between_successes_leave_the_circuit_closed(self) -> None:
        of = throttle()
        for _ in range(100):
            assert [attempt(of, result, NOW_S) for result in [BROKEN] * (FAILURES - 1) + [OK]] == [""] * FAILURES

    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_pauses_all_attempts_at_the_receiver(self, status: int) -> None:
        of = throttle()
        attempt(of, AttemptResult(status, retry_after="60"), NOW_S)
        assert of.wait_s(NOW_S) == 60.0
        attempt(of, AttemptResult(status, retry_after=str(10**6)), NOW_S + 60.0)
        assert of.wait_s(NOW_S + 60.0) == 3600.0
        of = throttle()
        attempt(of, AttemptResult(500, retry_after="60"), NOW_S)
        assert of.wait_s(NOW_S) == 0.0

    def test_a_receiver_that_answers_410_is_disabled(self) -> None:
        of = throttle()
        assert attempt(of, GONE, NOW_S) == "disabled"
        assert (of.state, of.since) == ("disabled", "2027-01-15T08:00:00Z")

    def test_attempts_keep_to_the_rate_limit(self) -> None:
        of, now_s = throttle(per_minute=30.0), NOW_S
        for _ in range(10):
            attempt(of, OK, now_s)
            assert of.wait_s(now_s) == 2.0
            now_s += 2.0
        of.end(None, now_s, probe=of.begin(now_s))  # an alert that is not sent uses up nothing
        assert of.wait_s(now_s) == 0.0


class SenderRig:
    """A sender with scripted results, whose receipts are kept."""

    def __init__(self, react: Callable[[Alert], AttemptResult], **fields: object) -> None:
        self.posts: list[str] = []
        self.receipts: list[Delivery] = []
        self.clock = ManualClock(started_ns=round(NOW_S * 1e9))
        self._react = react
        usual = {"name": "r", "url": "http://receiver/", "secret_file": Path("s"), "retry_s": (0, 1, 1, 1)}
        self.config = ReceiverConfig.model_validate(usual | fields)
        self.written = asyncio.Event()
        self.sender = ReceiverSender(
            self.config,
            self._make,
            self._write,
            self._read_again,
            clock=self.clock,
            chance=lambda: 0.0,
            failed=lambda error: pytest.fail(repr(error)),
        )
        self.sender.pending.open(0, 0)

    def enter(self, count: int) -> None:
        for number in range(count):
            alert = make_alert(event(number), ())
            self.sender.pending.alert(alert, AlertPosition(0, number), 0, 0.0, NOW_S)
        self.sender.wake()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                self.written.clear()
                await self.written.wait()

    def _make(self, _: ReceiverConfig) -> Deliverer:
        rig = self

        class Scripted:
            async def deliver(self, alert: Alert, now_s: float) -> AttemptResult:
                rig.posts.append(alert.id)
                await asyncio.sleep(0)
                return rig._react(alert)

            async def close(self) -> None:
                pass

        return Scripted()

    async def _write(self, outgoing: Outgoing) -> None:
        self.receipts.append(decode_json(Delivery, outgoing.value))
        self.written.set()

    async def _read_again(self, _: str, position: AlertPosition) -> Alert:
        return make_alert(event(position.offset), ())


async def test_the_alerts_of_a_gone_receiver_are_dead_after_one_post_and_a_new_address_enables_it() -> None:
    rig = SenderRig(lambda _: GONE)
    rig.enter(1)
    await rig.until(lambda: len(rig.receipts) == 1)
    rig.enter(40)
    await rig.until(lambda: len(rig.receipts) == 40)
    assert rig.posts == [alert_id(event(0))]
    assert {receipt.state for receipt in rig.receipts} == {"dead"}
    assert [receipt.status for receipt in rig.receipts] == [410] + [None] * 39
    assert "disabled since 2027-01-15T08:00:00Z, when the receiver answered 410" in rig.receipts[-1].reason
    rig._react = lambda _: OK
    rig.sender.change(rig.config.model_copy(update={"url": "http://new/"}))
    rig.sender.pending.alert(make_alert(event(99), ()), AlertPosition(0, 99), 0, 0.0, NOW_S)
    rig.sender.wake()
    await rig.until(lambda: len(rig.receipts) == 41)
    assert rig.receipts[-1].state == "delivered"
    await rig.sender.retire()


async def test_a_receiver_that_is_down_gets_few_posts_and_its_alerts_keep_their_attempts() -> None:
    rig = SenderRig(lambda _: BROKEN)
    rig.enter(200)
    await rig.until(lambda: rig.sender.throttle.state == "open")
    while any(rig.sender._attempts.values()):
        await asyncio.sleep(0)
    assert FAILURES <= len(rig.posts) < FAILURES + CONCURRENT
    rig._react = lambda _: OK
    before = len(rig.posts)
    rig.clock.advance(5.0)
    rig.sender.wake()
    await rig.until(lambda: sum(receipt.state == "delivered" for receipt in rig.receipts) == 200)
    assert len(rig.posts) == before + 200
    assert not [receipt for receipt in rig.receipts if receipt.state == "dead"]
    await rig.sender.retire()
