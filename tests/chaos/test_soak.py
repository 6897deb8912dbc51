"""Tests of the flatness criterion and of a short soak. ``python -m benchmarks.soak --hours 2`` runs a long soak."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.soak import Sample, SoakOptions, faults, judged, run
from deploy.local.kafka.broker import Broker


def sample(at_s: float, agent_mb: float, files: int) -> Sample:
    return Sample(at_s, agent_mb, files, 3, 4, 200.0, 48)


def test_memory_growth_of_6_mb_an_hour_and_a_new_open_file_every_20_minutes_are_leaks() -> None:
    flat = judged([sample(60.0 * n, 60.0 + n / 10, 36 + n // 20) for n in range(120)])
    assert not flat["agent_mb"]["flat"]
    assert flat["agent_mb"]["per_hour"] == pytest.approx(6.0)
    assert not flat["agent_files"]["flat"]
    assert flat["children_mb"]["flat"]


def test_fluctuations_of_memory_and_file_count_without_growth_are_no_leak() -> None:
    flat = judged([sample(60.0 * n, 60.0 + n % 3, 36 + n % 2) for n in range(120)])
    assert all(figure["flat"] for figure in flat.values())


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, []),
        ({"restarts": 1}, ["1 restarts of the agent"]),
        ({"flat": {"agent_mb": {"flat": False}}}, ["agent_mb not flat"]),
        ({"ledger": {"missing": 2, "holes": ["a"], "duplicates": 0}}, ["missing", "holes"]),
    ],
)
def test_each_violation_in_a_soak_run_is_reported(changed: dict[str, object], wrong: list[str]) -> None:
    good = {"restarts": 0, "flat": {"agent_mb": {"flat": True}}}
    assert faults({**good, "ledger": {"missing": 0, "holes": [], "duplicates": 0}, **changed}) == wrong


@pytest.mark.chaos
@pytest.mark.kafka
@pytest.mark.timeout(480)
async def test_every_frame_is_accounted_for_after_successive_faults(own_broker: Broker, tmp_path: Path) -> None:
    options = SoakOptions(seconds=16.0, rtsp=0, every_s=1.0, fault_every_s=2.0, fault_s=2.0)
    report = await run(options, tmp_path, own_broker, lambda _: None)
    ledger = report["ledger"]
    assert report["faults"] >= 3
    assert (ledger["missing"], ledger["holes"], ledger["duplicates"]) == (0, [], 0)
    assert (report["restarts"], report["died_of"]) == (0, [])
    assert len(report["samples"]) >= 10
