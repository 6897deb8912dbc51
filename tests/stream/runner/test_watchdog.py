"""Tests of the watchdog: a stalled process is ended, an idle one is not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from ingest.runtime.clock import ManualClock
from stream.exceptions import Stuck
from stream.runner import watchdog
from stream.runner.watchdog import JOIN_S, MAX_FAILED_CHECKS, STALL_S, Signs, StallDetector, Watchdog

IDLE = Signs(progress=5, waiting=0, rebalancing=False, joined=True)
BUSY = Signs(progress=5, waiting=3, rebalancing=False, joined=True)
REBALANCING = Signs(progress=5, waiting=0, rebalancing=True, joined=True)
OUTSIDE = Signs(progress=0, waiting=0, rebalancing=True, joined=False)


def test_the_watchdog_does_not_treat_an_idle_process_as_stalled() -> None:
    detector = StallDetector(0.0)
    assert not detector.check(0.0, IDLE)
    assert not detector.check(100 * STALL_S, IDLE)


@pytest.mark.parametrize("signs", [BUSY, REBALANCING])
def test_the_watchdog_detects_a_stall_after_the_time_limit(signs: Signs) -> None:
    detector = StallDetector(0.0)
    assert not detector.check(1.0, signs)
    assert not detector.check(STALL_S, signs)
    assert "no progress" in detector.check(STALL_S + 1.0, signs)


def test_progress_restarts_the_time_limit_of_the_watchdog() -> None:
    detector = StallDetector(0.0)
    for step in range(20):
        assert not detector.check(step * STALL_S / 2, Signs(step, 3, rebalancing=False, joined=True))


def test_work_after_idle_time_has_the_full_time_limit_of_the_watchdog() -> None:
    detector = StallDetector(0.0)
    detector.check(10 * STALL_S, IDLE)
    assert not detector.check(10 * STALL_S + 1.0, BUSY)
    assert not detector.check(11 * STALL_S - 1.0, BUSY)
    assert detector.check(11 * STALL_S + 1.0, BUSY)


def test_the_watchdog_detects_a_missing_partition_assignment_after_the_time_limit() -> None:
    detector = StallDetector(0.0)
    assert not detector.check(JOIN_S - 1.0, OUTSIDE)
    assert "no partition was assigned" in detector.check(JOIN_S, OUTSIDE)


@pytest.mark.parametrize("signs", [BUSY, REBALANCING, OUTSIDE])
def test_an_outage_of_kafka_is_no_stall_and_restarts_the_time_limits_of_the_watchdog(signs: Signs) -> None:
    detector, limit_s = StallDetector(0.0), JOIN_S if signs is OUTSIDE else STALL_S
    assert not detector.check(0.0, signs)
    for failures in range(1, 11):
        signs = replace(signs, kafka_failures=failures)
        assert not detector.check(failures * limit_s, signs)
    assert not detector.check(11 * limit_s - 1.0, signs)
    assert detector.check(11 * limit_s + 1.0, signs)  # a watch that no longer asks Kafka does not hide a stall


class WatchdogRig:
    """A watchdog that checks without pause, and a count of its checks and reports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, signs: Callable[[int], Signs]) -> None:
        monkeypatch.setattr(watchdog, "CHECK_S", 0.001)
        self.clock = ManualClock()
        self.reported = threading.Event()
        self.reasons: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.checks = 0
        self._read = signs
        self._watchdog = Watchdog(self._signs, self.clock, self._report)

    def run(self) -> None:
        """Let the watchdog check until it reports."""
        self._watchdog.start()
        assert self.reported.wait(10.0)
        self._watchdog.stop()

    def _signs(self) -> Signs:
        self.checks += 1
        return self._read(self.checks)

    def _report(self, error: Stuck) -> None:
        self.reasons.append(str(error))
        self.threads.add(threading.current_thread())
        self.reported.set()


def test_the_watchdog_reports_a_stall_once_from_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def signs(check: int) -> Signs:
        rig.clock.advance(JOIN_S)
        return OUTSIDE

    rig = WatchdogRig(monkeypatch, signs)
    rig.run()
    assert len(rig.reasons) == 1
    assert threading.main_thread() not in rig.threads


def test_a_single_failed_check_of_the_watchdog_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def signs(check: int) -> Signs:
        if check % MAX_FAILED_CHECKS:
            raise AssertionError
        rig.clock.advance(STALL_S)
        return BUSY

    rig = WatchdogRig(monkeypatch, signs)
    rig.run()
    assert "no progress" in rig.reasons[0]
    assert rig.checks > MAX_FAILED_CHECKS


def test_repeated_failed_checks_of_the_watchdog_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def signs(check: int) -> Signs:
        raise AssertionError("no position")

    rig = WatchdogRig(monkeypatch, signs)
    rig.run()
    assert rig.reasons == ["the watchdog cannot read the state: AssertionError('no position')"]
    assert rig.checks == MAX_FAILED_CHECKS
