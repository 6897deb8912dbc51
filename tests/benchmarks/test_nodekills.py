"""Tests of the plan and the verdict of repeated kills of two engine nodes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.serving.kills import NODES, NodeKill, NodeKillEvidence, judge, plan

KILLS = [NodeKill("engine-1", 1.5, 30), NodeKill("engine-2", 9.0, 200)]
GOOD = NodeKillEvidence(
    kills=KILLS,
    planned=2,
    sent=3,
    results=Counter({"a/1/0": 1, "a/1/1": 1, "b/1/0": 1}),
    dead_letters=0,
    unaccounted=0,
    ledger_duplicates=0,
)


def test_the_same_seed_plans_the_same_kills_of_both_engine_nodes() -> None:
    steps = plan(30, 7, 20.0)
    assert steps == plan(30, 7, 20.0)
    assert steps != plan(30, 8, 20.0)
    assert {node for _, node in steps} == set(NODES)
    assert all(0.0 <= pause_s <= 20.0 for pause_s, _ in steps)


def test_a_kill_run_with_one_result_per_frame_passes() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sent": 4}, "4 frames were sent, 3 of them have a result"),
        ({"results": Counter({"a/1/0": 1, "a/1/1": 2, "b/1/0": 1})}, "more than one result, such as a/1/1"),
        ({"dead_letters": 1}, "1 frames have a dead letter"),
        ({"unaccounted": 1}, "1 frames unaccounted"),
        ({"ledger_duplicates": 2}, "2 duplicates"),
        ({"planned": 3}, "2 kills: expected 3"),
    ],
    ids=["lost frame", "second result", "dead letter", "unaccounted", "duplicate", "missing kill"],
)
def test_each_violation_in_a_run_with_node_kills_is_reported(change: dict[str, object], fault: str) -> None:
    (found,) = judge(replace(GOOD, **change))  # type: ignore[arg-type]
    assert fault in found
