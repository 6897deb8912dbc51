"""Tests of the plan and the verdict of a chaos run. ``python -m benchmarks.chaos`` performs a chaos run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.faults import FaultInjector
from benchmarks.chaos.judge import ChaosEvidence, InjectedFault, Post, judge
from benchmarks.chaos.plan import (
    BROKER,
    CALM_S,
    CAPTURE,
    KILL,
    KINDS,
    PAUSE,
    STOP,
    TARGETS,
    TWICE,
    ChaosOptions,
    PlannedFault,
    plan,
)
from deploy.local.demo.figures import Figures
from deploy.local.demo.run import RunningStack
from deploy.local.kafka.broker import Broker
from deploy.local.supervisor import Supervisor
from ingest.contract.records import Box, Event, EventData, Overlay
from ingest.kafka.settings import KafkaSettings

SECOND = 1_000_000_000
TOTALS = {"unaccounted": 0, "duplicates": 0}


def test_the_same_seed_gives_the_same_plan_of_faults() -> None:
    assert plan(ChaosOptions(seed=7)) == plan(ChaosOptions(seed=7))
    assert plan(ChaosOptions(seed=7)) != plan(ChaosOptions(seed=8))


def test_every_process_has_each_kind_of_fault_before_any_fault_is_repeated() -> None:
    faults = plan(ChaosOptions(faults=len(KINDS) * len(TARGETS)))
    counts = Counter((fault.target, fault.kind) for fault in faults)
    assert {target for target, _ in counts} == set(TARGETS)
    assert {count for (target, _), count in counts.items() if target != CAPTURE} == {1}
    assert (CAPTURE, STOP) not in counts


def test_planned_faults_are_in_time_order_and_end_before_the_calm_period() -> None:
    options = ChaosOptions(seconds=600.0, faults=40)
    times = [fault.at_s for fault in plan(options)]
    assert len(times) == 40
    assert times == sorted(times)
    assert times[-1] <= options.seconds - CALM_S


def fault(target: str, begin_s: float, end_s: float, kind: str = KILL, *, kills: int = 1) -> InjectedFault:
    planned = PlannedFault(begin_s, target, kind, 0.0)
    return InjectedFault(planned, round(begin_s * SECOND), round(end_s * SECOND), kills)


def event(seq: int, left: float = 10.0, track: str = "1-0") -> Event:
    data = EventData(
        incident="i",
        rule="line",
        camera="road",
        label="car",
        summary="s",
        epoch=5,
        seq=seq,
        track=track,
        overlay=Overlay(box=Box(left, 20.0, 30.0, 40.0)),
    )
    return Event(id=f"{track}-{seq}", source="s", type="t", subject="road", time="2026-11-29T12:00:00Z", data=data)


def good() -> ChaosEvidence:
    """Return the evidence of a run with two events, each with one alert and one post."""
    return ChaosEvidence(
        TOTALS,
        balanced=True,
        posts=[Post(10 * SECOND, "a"), Post(20 * SECOND, "b")],
        events=[event(1), event(2)],
        replayed=[event(1), event(2)],
        alerts=["a", "b"],
        receipts={"a": "delivered", "b": "delivered"},
    )


def test_a_chaos_run_without_losses_passes() -> None:
    report = judge(good())
    assert report["violations"] == []
    assert report["posts_per_alert"] == {"1": 2}


@pytest.mark.parametrize(
    ("changed", "violation"),
    [
        ({"totals": {"unaccounted": 3, "duplicates": 0}}, "3 unaccounted"),
        ({"balanced": False}, "the ledger does not balance"),
        ({"replayed": [event(1), event(2), event(3)]}, "1 lost_events"),
        ({"events": [event(1), event(2), event(2, track="9-9")]}, "1 repeated_events"),
        ({"alerts": ["a", "b", "b"]}, "1 repeated_alerts"),
        ({"alerts": ["a"]}, "1 events_without_alert"),
        ({"posts": [Post(0, "a")]}, "1 alerts_without_post: b"),
        ({"receipts": {"a": "delivered", "b": "dead"}}, "1 alerts_not_delivered: b"),
        ({"problems": ["not drained"]}, "not drained"),
        ({"injected": [replace(fault("engine", 1, 9), problem="not running within 90 s")]}, "engine: not running"),
    ],
)
def test_each_violation_in_a_chaos_run_is_reported(changed: dict[str, Any], violation: str) -> None:
    assert violation in "; ".join(judge(replace(good(), **changed))["violations"])


def test_an_event_of_a_track_that_a_restart_renamed_does_not_count_as_lost() -> None:
    assert judge(replace(good(), replayed=[event(1), event(2, track="7-3")]))["violations"] == []


@pytest.mark.parametrize(
    ("injected", "unexplained"),
    [
        ([], 1),
        ([fault("dispatch", 11, 13)], 0),
        ([fault("broker", 5, 12)], 0),
        ([fault("webhook-receiver", 21, 22)], 1),  # after the repeated post
        ([fault("dispatch", 11, 13, STOP, kills=0)], 1),
        ([fault("dispatch", 11, 13, PAUSE, kills=0)], 1),
        ([fault("engine", 11, 13)], 1),
    ],
)
def test_a_repeated_webhook_post_is_excused_only_by_a_kill_between_both_posts(
    injected: list[InjectedFault], unexplained: int
) -> None:
    posts = [*good().posts, Post(15 * SECOND, "a")]
    report = judge(replace(good(), posts=posts, injected=injected))
    assert report["counts"]["extra_posts_explained_by_a_kill"] == 1 - unexplained
    assert ("1 unexplained_extra_posts: a" in report["violations"]) is bool(unexplained)


def test_one_kill_excuses_only_one_repeated_webhook_post() -> None:
    posts = [*good().posts, Post(24 * SECOND, "a"), Post(25 * SECOND, "b")]
    report = judge(replace(good(), posts=posts, injected=[fault("dispatch", 21, 23)]))
    assert report["posts_per_alert"] == {"2": 2}
    assert "1 unexplained_extra_posts: b" in report["violations"]
    twice = judge(replace(good(), posts=posts, injected=[fault("dispatch", 21, 23, TWICE, kills=2)]))
    assert twice["violations"] == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_broker_that_does_not_run_again_after_a_fault_is_reported(kind: str, tmp_path: Path) -> None:
    running = RunningStack(Supervisor([], tmp_path), Figures(), KafkaSettings(), tmp_path)
    injector = FaultInjector(running, Broker(tmp_path, tmp_path), lambda _: None)
    await injector.run([PlannedFault(0.0, BROKER, kind, 0.0)])
    (injected,) = injector.injected
    assert "has been down since an earlier fault" in injected.problem
    assert injected.kills == 0
