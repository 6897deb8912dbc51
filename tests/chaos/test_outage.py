"""Tests of an outage of the broker. ``python -m benchmarks.outage`` runs a long one with four cameras."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.outage import OutageOptions, run
from deploy.local.kafka.broker import Broker
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit

pytestmark = [pytest.mark.chaos, pytest.mark.kafka, pytest.mark.timeout(240)]


async def test_the_backlog_arrives_in_order_without_delaying_live_frames(own_broker: Broker, tmp_path: Path) -> None:
    report = await run(OutageOptions(normal_s=8.0, outage_s=12.0), tmp_path, own_broker, lambda _: None)
    ledger = report["ledger"]
    assert (ledger["missing"], ledger["holes"], ledger["duplicates"], ledger["withheld"]) == (0, [], 0, {})
    assert report["late"]["frames"] > 4 * 10 * 8
    assert report["late"]["mib_per_s"] < 2.6  # the pace of the backlog, plus its first burst
    # 1.5 over minutes on an idle machine; the p99 of a few hundred frames depends on three of them
    assert report["live_ms"]["catching_up"]["p95"] < 3 * max(report["live_ms"][w]["p95"] for w in ("before", "after"))


async def test_rows_expired_from_a_small_spool_are_accounted_for(own_broker: Broker, tmp_path: Path) -> None:
    options = OutageOptions(cameras=2, normal_s=3.0, outage_s=15.0, spool_mib=2)
    report = await run(options, tmp_path, own_broker, lambda _: None)
    ledger = report["ledger"]
    assert (ledger["missing"], ledger["holes"], ledger["duplicates"]) == (0, [], 0)
    assert set(ledger["withheld"]) == {"expired"}
    assert 50 < ledger["withheld"]["expired"] < 2 * 10 * 20
    assert report["late"]["frames"] > 5  # the newest frames of the backlog were kept
    async with KafkaLog(KafkaSettings(bootstrap=own_broker.bootstrap, prefix="outage."), "test") as log:
        balance = await audit(log, wait_s=0)
    assert {name: line.withheld["expired"] > 10 for name, line in balance.cameras.items()} == {
        "camera-0": True,
        "camera-1": True,
    }
