"""When a process should be ended, and when it is only idle."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ingest.runtime.clock import ManualClock
from stream.exceptions import Stuck
from stream.runner import watchdog
from stream.runner.watchdog import JOIN_S, MAX_FAILED_CHECKS, STALL_S, Signs, StallDetector, Watchdog

IDLE = Signs(progress=5, waiting=0, rebalancing=False, joined=True)
BUSY = Signs(progress=5, waiting=3, rebalancing=False, joined=True)
REBALANCING = Signs(progress=5, waiting=0, rebalancing=True, joined=True)
OUTSIDE = Signs(progress=0, waiting=0, rebalancing=True, joined=False)


def test_idleness_is_no_stall() -> None:
    detector = StallDetector(0.0)
    assert not detector.check(0.0, IDLE)
    assert not detector.check(100 * STALL_S, IDLE)


@pytest.mark.parametrize("signs", [BUSY, REBALANCING])
def test_a_stall_is_seen_after_its_time(signs: Signs) -> None:
    detector = StallDetector(0.0)
    assert not detector.check(1.0, signs)
    assert not detector.check(STALL_S, signs)
    assert "no progress" in detector.check(STALL_S + 1.0, signs)


def test_movement_starts_the_time_anew() -> None:
    detector = StallDetector(0.0)
    for step in range(20):
        assert not detector.check(step * STALL_S / 2, Signs(step, 3, rebalancing=False, joined=True))


def test_work_after_idleness_has_its_full_time() -> None:
    detector = StallDetector(0.0)
    detector.check(10 * STALL_S, IDLE)
    assert not detector.check(10 * STALL_S + 1.0, BUSY)
    assert not detector.check(11 * STALL_S - 1.0, BUSY)
    assert detector.check(11 * STALL_S + 1.0, BUSY)


def test_a_group_that_lets_nobody_in() -> None:
    detector = StallDetector(0.0)
    assert not detector.check(JOIN_S - 1.0, OUTSIDE)
    assert "no partition was assigned" in detector.check(JOIN_S, OUTSIDE)


class Kennel:
    """A dog that looks all the time, and how often it looked and barked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, signs: Callable[[int], Signs]) -> None:
        monkeypatch.setattr(watchdog, "CHECK_S", 0.001)
        self.clock = ManualClock()
        self.barked = threading.Event()
        self.reasons: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.looks = 0
        self._see = signs
        self._dog = Watchdog(self._signs, self.clock, self._bark)

    def run(self) -> None:
        """Let the dog look until it barks."""
        self._dog.start()
        assert self.barked.wait(10.0)
        self._dog.stop()

    def _signs(self) -> Signs:
        self.looks += 1
        return self._see(self.looks)

    def _bark(self, error: Stuck) -> None:
        self.reasons.append(str(error))
        self.threads.add(threading.current_thread())
        self.barked.set()


def test_the_dog_barks_once_from_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def signs(look: int) -> Signs:
        kennel.clock.advance(JOIN_S)
        return OUTSIDE

    kennel = Kennel(monkeypatch, signs)
    kennel.run()
    assert len(kennel.reasons) == 1
    assert threading.main_thread() not in kennel.threads


def test_a_look_that_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def signs(look: int) -> Signs:
        if look % MAX_FAILED_CHECKS:
            raise AssertionError
        kennel.clock.advance(STALL_S)
        return BUSY

    kennel = Kennel(monkeypatch, signs)
    kennel.run()
    assert "no progress" in kennel.reasons[0]
    assert kennel.looks > MAX_FAILED_CHECKS


def test_a_dog_that_sees_nothing_any_more_barks(monkeypatch: pytest.MonkeyPatch) -> None:
    def signs(look: int) -> Signs:
        raise AssertionError("no position")

    kennel = Kennel(monkeypatch, signs)
    kennel.run()
    assert kennel.reasons == ["the watchdog cannot read the state: AssertionError('no position')"]
    assert kennel.looks == MAX_FAILED_CHECKS
