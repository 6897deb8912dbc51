"""Tests of the plan and the verdict of rebalances and kills of two workers per stage."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.chaos.rebalances import WORKERS, RebalanceEvidence, judge, plan
from ingest.contract.records import Event, EventData

FAULTS = plan(4, 1, 1, 1.0)


def event(name: str) -> Event:
    data = EventData(incident="i", rule="line", camera="road", label="car", summary="s")
    return Event(id=name, source="s", type="t", subject="road", time="2026-11-29T12:00:00Z", data=data)


EVENTS = [event("a"), event("b")]
GOOD = RebalanceEvidence(
    FAULTS,
    sent=2,
    assignments=4,
    results=Counter({"road/1/0": 1, "road/1/1": 1}),
    events=EVENTS,
    expected_events=EVENTS,
)


def test_the_same_seed_plans_the_same_worker_kills_and_stops_and_another_seed_plans_others() -> None:
    faults = plan(100, 30, 7, 5.0)
    assert faults == plan(100, 30, 7, 5.0)
    assert faults != plan(100, 30, 8, 5.0)
    assert Counter(fault.kind for fault in faults) == {"kill": 30, "stop": 20}
    assert {fault.worker for fault in faults} == set(WORKERS)


def test_a_run_of_rebalances_with_the_events_of_an_undisturbed_run_passes() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"unaccounted": 1}, "1 frames unaccounted"),
        ({"ledger_duplicates": 2}, "2 duplicates"),
        ({"dead_letters": 1}, "1 dead letters"),
        ({"results": Counter({"road/1/0": 1})}, "2 frames have 1 results"),
        ({"assignments": 3}, "3 assignments of partitions: expected at least 4"),
        ({"events": EVENTS[:1]}, "1 events lost: b"),
        ({"events": [*EVENTS, EVENTS[0]]}, "1 events too many: a"),
        ({"events": [], "expected_events": []}, "no events"),
    ],
    ids=[
        "lost frame",
        "second result",
        "dead letter",
        "no result",
        "no rebalance",
        "lost event",
        "repeated event",
        "no event",
    ],
)
def test_each_violation_in_a_run_of_rebalances_is_reported(change: dict[str, object], fault: str) -> None:
    (found,) = judge(replace(GOOD, **change))  # type: ignore[arg-type]
    assert fault in found
