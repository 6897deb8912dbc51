"""When a process should be ended, and when it is only idle."""

from __future__ import annotations

import threading

import pytest

from ingest.clock import ManualClock
from stream.runner import watchdog
from stream.runner.watchdog import JOIN_S, STALL_S, Signs, Watch, Watchdog

IDLE = Signs(moved=5, waiting=0, rebalancing=False, joined=True)
BUSY = Signs(moved=5, waiting=3, rebalancing=False, joined=True)
REBALANCING = Signs(moved=5, waiting=0, rebalancing=True, joined=True)
OUTSIDE = Signs(moved=0, waiting=0, rebalancing=True, joined=False)


def test_idleness_is_no_stall() -> None:
    watch = Watch(0.0)
    assert not watch.look(0.0, IDLE)
    assert not watch.look(100 * STALL_S, IDLE)


@pytest.mark.parametrize("signs", [BUSY, REBALANCING])
def test_a_stall_is_seen_after_its_time(signs: Signs) -> None:
    watch = Watch(0.0)
    assert not watch.look(1.0, signs)
    assert not watch.look(STALL_S, signs)
    assert "nothing moved" in watch.look(STALL_S + 1.0, signs)


def test_movement_starts_the_time_anew() -> None:
    watch = Watch(0.0)
    for step in range(20):
        assert not watch.look(step * STALL_S / 2, Signs(step, 3, rebalancing=False, joined=True))


def test_work_after_idleness_has_its_full_time() -> None:
    watch = Watch(0.0)
    watch.look(10 * STALL_S, IDLE)
    assert not watch.look(10 * STALL_S + 1.0, BUSY)
    assert not watch.look(11 * STALL_S - 1.0, BUSY)
    assert watch.look(11 * STALL_S + 1.0, BUSY)


def test_a_group_that_lets_nobody_in() -> None:
    watch = Watch(0.0)
    assert not watch.look(JOIN_S - 1.0, OUTSIDE)
    assert "no partition" in watch.look(JOIN_S, OUTSIDE)


def test_the_dog_barks_once_from_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "CHECK_S", 0.001)
    clock, barked, reasons = ManualClock(), threading.Event(), []

    def signs() -> Signs:
        clock.advance(JOIN_S)
        return OUTSIDE

    def bark(reason: str) -> None:
        reasons.append((reason, threading.current_thread() is not threading.main_thread()))
        barked.set()

    dog = Watchdog(signs, clock, bark)
    dog.start()
    assert barked.wait(10.0)
    dog.stop()
    assert len(reasons) == 1
    assert reasons[0][1]
