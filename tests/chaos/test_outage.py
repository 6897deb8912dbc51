"""Tests of an outage of the broker. ``python -m benchmarks.outage`` runs a long outage with four cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.outage import OutageOptions, faults, run
from deploy.local.kafka.broker import Broker
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit

IN_FLIGHT = 400
"""Maximum number of frames of 320 × 180 px that are in flight to the killed broker: the default of
``max_in_flight_bytes``, 4 MiB, holds about 390. They stay in the live lane, so they do not arrive as late frames."""


@pytest.mark.chaos
@pytest.mark.kafka
@pytest.mark.timeout(480)
async def test_the_backlog_of_a_broker_outage_arrives_completely_in_order_and_once(
    own_broker: Broker, tmp_path: Path
) -> None:
    options = OutageOptions(width=320, height=180, normal_s=8.0, outage_s=12.0)
    report = await run(options, tmp_path, own_broker, lambda _: None)
    ledger = report["ledger"]
    assert (ledger["missing"], ledger["holes"], ledger["duplicates"]) == (0, [], 0)
    assert set(ledger["withheld"]) <= {"overload"}  # on a busy machine, capture withholds frames
    assert report["late"]["frames"] > options.cameras * options.fps * options.outage_s - IN_FLIGHT


@pytest.mark.parametrize(
    ("changed", "wrong"),
    [
        ({}, []),
        ({"ledger": {"missing": 2, "holes": ["a"], "duplicates": 1}}, ["missing", "holes", "duplicates"]),
        ({"late": {"mib_per_s": 2.6}}, ["the backlog ran at 2.6 MiB/s, its rate is 2"]),
        (
            {"live_ms": {"before": {"p95": 10.0}, "catching_up": {"p95": 60.0}, "after": {"p95": 20.0}}},
            ["live frames beside the backlog: p95 60.0 ms"],
        ),
    ],
)
def test_each_violation_in_an_outage_run_is_reported(changed: dict[str, Any], wrong: list[str]) -> None:
    good = {
        "ledger": {"missing": 0, "holes": [], "duplicates": 0},
        "late": {"mib_per_s": 2.5},
        "live_ms": {"before": {"p95": 10.0}, "catching_up": {"p95": 59.0}, "after": {"p95": 20.0}},
    }
    assert faults(OutageOptions(), {**good, **changed}) == wrong


def test_a_fast_backlog_is_a_violation_only_if_a_rate_limit_is_set() -> None:
    ledger, live = {"missing": 0, "holes": [], "duplicates": 0}, {"p95": 10.0}
    report = {
        "ledger": ledger,
        "late": {"mib_per_s": 40.0},
        "live_ms": dict.fromkeys(("before", "catching_up", "after"), live),
    }
    assert faults(OutageOptions(late_mib_per_s=0.0), report) == []


@pytest.mark.chaos
@pytest.mark.kafka
@pytest.mark.timeout(480)
async def test_rows_expired_from_a_small_spool_are_accounted_for(own_broker: Broker, tmp_path: Path) -> None:
    options = OutageOptions(cameras=2, normal_s=3.0, outage_s=15.0, spool_mib=2)
    report = await run(options, tmp_path, own_broker, lambda _: None)
    ledger = report["ledger"]
    assert (ledger["missing"], ledger["holes"], ledger["duplicates"]) == (0, [], 0)
    assert {"expired"} <= set(ledger["withheld"]) <= {"expired", "overload"}  # overload on a busy machine
    assert 50 < ledger["withheld"]["expired"] < 2 * 10 * (report["down_s"] + 5)
    assert report["late"]["frames"] > 5  # the newest frames of the backlog were kept
    async with KafkaLog(KafkaSettings(bootstrap=own_broker.bootstrap, prefix="outage."), "test") as log:
        balance = await audit(log, wait_s=0)
    assert {name: line.withheld["expired"] > 10 for name, line in balance.cameras.items()} == {
        "camera-0": True,
        "camera-1": True,
    }
