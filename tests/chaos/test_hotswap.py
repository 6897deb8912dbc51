"""Tests of the verdict on a run that replaces the model of a live engine node."""

from __future__ import annotations

import pytest

from benchmarks.serving.hotswap import judge

GOOD = [(0, 1), (0, 1), (1, 1), (0, 3), (1, 4)]


def test_a_hot_swap_run_with_one_result_per_frame_and_rising_model_versions_passes() -> None:
    assert judge(5, GOOD, 0, frozenset({2}), [90.0] * 10 + [100.0] * 20 + [104.0] * 10, 0) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sent": 6}, "6 frames, 5 results"),
        ({"dead": 1}, "1 dead letters"),
        ({"broken": frozenset({3})}, "broken versions [3]"),
        ({"results": [*GOOD[:4], (0, 1)]}, "partition 0 goes back"),
        ({"memory_mb": [100.0] * 30 + [106.0] * 10}, "memory grew from 100 to 106 MB"),
        ({"restarts": 2}, "restarted 2 times"),
    ],
    ids=["lost frame", "dead letter", "broken version", "older version", "memory", "restart"],
)
def test_each_violation_in_a_hot_swap_run_is_reported(change: dict[str, object], fault: str) -> None:
    arguments = {"sent": 5, "results": GOOD, "dead": 0, "broken": frozenset(), "memory_mb": [], "restarts": 0}
    (found,) = judge(**{**arguments, **change})  # type: ignore[arg-type]
    assert fault in found
