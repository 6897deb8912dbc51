"""Tests of the rate limit and the circuit breaker of a receiver, alone and in its sender. Without Kafka."""

from __future__ import annotations

import asyncio

import pytest

from ingest.contract.records import Alert
from stream.alerts.alert import alert_id
from stream.delivery.schedule import AttemptResult
from stream.delivery.sending import CONCURRENT
from stream.delivery.throttle import FAILURES, LAST_PAUSE_S, ReceiverThrottle
from tests.stream.alerts.test_alerts import event
from tests.stream.delivery.senderrig import BROKEN, GONE, NOW_S, OK, SenderRig


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


async def test_a_receiver_that_answered_410_gets_no_more_alerts_until_its_address_changes() -> None:
    rig = SenderRig(lambda _: GONE)
    rig.enter(1)
    await rig.until(lambda: len(rig.receipts) == 1)
    rig.enter(40, first=1)
    await rig.until(lambda: len(rig.receipts) == 41)
    assert rig.posts == [alert_id(event(0))]
    assert {receipt.state for receipt in rig.receipts} == {"dead"}
    assert [receipt.status for receipt in rig.receipts] == [410] + [None] * 40
    assert "disabled since 2027-01-15T08:00:00Z, when the receiver answered 410" in rig.receipts[-1].reason
    rig.react = lambda _: OK
    rig.sender.change(rig.config.model_copy(update={"url": "http://new/"}))
    rig.enter(1, first=99)
    await rig.until(lambda: len(rig.receipts) == 42)
    assert rig.receipts[-1].state == "delivered"
    await rig.sender.retire()


async def test_the_client_of_a_former_configuration_is_closed_when_its_attempts_have_ended() -> None:
    rig = SenderRig(lambda _: OK)
    closed: list[int] = []

    def change(_: Alert) -> AttemptResult:
        rig.sender.change(rig.config.model_copy(update={"url": "http://new/"}))
        closed.append(rig.closed)
        return OK

    rig.react = change
    rig.enter(1)
    await rig.until(lambda: len(rig.receipts) == 1)
    async with asyncio.timeout(10):
        while rig.closed == 0:
            await asyncio.sleep(0)
    assert closed == [0]
    await rig.sender.retire()
    assert rig.closed == 2


async def test_a_receiver_that_is_down_gets_few_posts_and_all_its_alerts_are_delivered_when_it_recovers() -> None:
    rig = SenderRig(lambda _: BROKEN)
    rig.enter(200)
    await rig.until(lambda: rig.sender.throttle.state == "open")
    while any(rig.sender._attempts.values()):
        await asyncio.sleep(0)
    assert FAILURES <= len(rig.posts) < FAILURES + CONCURRENT
    rig.react = lambda _: OK
    before = len(rig.posts)
    rig.clock.advance(5.0)
    rig.sender.wake()
    await rig.until(lambda: sum(receipt.state == "delivered" for receipt in rig.receipts) == 200)
    assert len(rig.posts) == before + 200
    assert not [receipt for receipt in rig.receipts if receipt.state == "dead"]
    await rig.sender.retire()


async def test_alerts_of_a_receiver_that_stays_down_are_dead_once_the_configured_retry_time_is_over() -> None:
    rig = SenderRig(lambda _: BROKEN, retry_s=(0, 3600))
    rig.enter(200)
    await rig.until(lambda: rig.sender.throttle.state == "open")
    while any(rig.sender._attempts.values()):
        await asyncio.sleep(0)
    posts = len(rig.posts)
    rig.clock.advance(3000.0)
    rig.enter(1, first=200)
    rig.clock.advance(600.0)
    rig.sender.wake()
    await rig.until(lambda: sum(receipt.state == "dead" for receipt in rig.receipts) >= 199)
    await rig.sender.retire()
    assert len(rig.posts) == posts + 1  # the one attempt that the open circuit allows
    assert 1 <= len(rig.sender.pending) <= 2  # the alert that was written later, and the alert of this attempt
    dead = [receipt.reason for receipt in rig.receipts if receipt.state == "dead"]
    assert "not delivered in the time of retry_s: the receiver fails since 2027" in dead[-1]
