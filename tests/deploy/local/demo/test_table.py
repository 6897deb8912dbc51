"""Tests that the terminal's tables fit into 80 columns and agree with the report."""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import Any

import pytest
from rich.console import Console, RenderableType

from deploy.local.demo.figures import Figures
from deploy.local.demo.table import SENSOR_STATES, STATES, balance_table, live_table, sensor_table, summary
from deploy.local.demo.truth import CrossingScore
from ingest.contract.identity import FrameId
from ingest.contract.records import EpochEnd, Heartbeat, WithheldInterval
from ingest.ledger.balance import Balance, compute_balance
from ingest.ledger.states import Ledger


def drawn(table: RenderableType, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(table)
    return console.export_text()


def balance(cameras: int, *, unaccounted: int = 0) -> dict[str, Any]:
    row = dict.fromkeys(STATES, 12_345) | {"withheld": {"still": 300, "rate": 45}, "unaccounted": unaccounted}
    rows = {f"a-long-camera-name-{number}": row for number in range(cameras)}
    return {"cameras": rows, "totals": row, "balanced": not unaccounted, "left_out": []}


@pytest.mark.parametrize("cameras", [0, 1, 4, 5, 200])
def test_the_ledger_table_fits_into_80_columns_without_cutting_a_state(cameras: int) -> None:
    text = drawn(balance_table(balance(cameras)))
    for state in STATES:
        assert state in text
    assert max(map(len, text.splitlines())) <= 80
    assert " 345 " in text, "withheld is the sum of its reasons"
    assert "balanced: every captured frame" in text


def test_the_ledger_table_reports_a_loss_of_frames() -> None:
    assert "NOT balanced" in drawn(balance_table(balance(1, unaccounted=3)))


def test_the_ledger_table_names_a_camera_that_the_audit_left_out() -> None:
    assert "no verdict on gate" in drawn(balance_table(balance(1) | {"left_out": ["gate"]}))


def test_every_row_of_the_ledger_table_is_a_state_of_the_ledger() -> None:
    assert set(STATES) <= set(compute_balance(Ledger()).to_dict()["totals"])


def report(**changes: Any) -> dict[str, Any]:
    return {
        "events": 3,
        "alerts": 3,
        "incidents": {"critical": 1, "warning": 1},
        "deliveries": {"delivered": 2, "dead": 1},
        "frames_per_second": 24.18,
        "latency_ms": {"capture_to_result": {"p50": 79.0, "p95": 96.2, "p99": 166.5}, "capture_to_receipt": {}},
        "hints": [],
        "truth": None,
        **changes,
    }


def test_the_demo_summary_has_latencies_and_failed_deliveries_in_words() -> None:
    text = summary(report())
    assert "3 alerts: 2 delivered, 1 dead" in text
    assert "2 incidents: 1 critical, 1 warning" in text
    assert "p50 79 ms, p95 96 ms, p99 166 ms" in text or "p50 79 ms, p95 96 ms, p99 167 ms" in text
    assert "capture to receipt  –" in text
    assert "truth" not in text
    assert "{" not in text


def test_the_demo_summary_compares_events_with_the_ground_truth() -> None:
    score = asdict(CrossingScore(line_crossings=55, found=54, false=2, labels_right=52))
    text = summary(report(truth=score))
    assert "55 line crossings in truth: 54 found (52 with the right label), 2 false" in text


def test_the_live_table_of_the_demo_shows_cameras_and_services() -> None:
    figures = Figures()
    figures.cameras["gate"].outcomes["classified"] = 77
    figures.heartbeat(Heartbeat(service="prepare", instance="prepare-0", state="running", at_ns=1), now_s=100.0)
    text = drawn(live_table(figures, now_s=101.0, left_s=9.0, restarts={"prepare": 2}), width=120)
    assert "gate" in text
    assert "77" in text
    assert "prepare×2" in text
    assert "9 s left" in text


def books(sensors: int, last: int) -> Balance:
    """Return a balance of sensors that each have 345 withheld readings followed by 3,000 delivered ones."""
    entered = Ledger()
    for number in range(sensors):
        name = f"a-long-sensor-name-{number}"
        account = WithheldInterval(camera=name, epoch=1, first=0, last=344, counts={"unusable": 300, "outage": 45})
        entered.add_readings(FrameId(name, 1, 345), 3344, account)
        entered.add_epoch_end(EpochEnd(camera=name, epoch=1, last=last, clean=True))
    return compute_balance(entered)


def drawn_sensors(balance: Balance) -> str:
    return drawn(sensor_table(balance.to_dict()))


@pytest.mark.parametrize("sensors", [1, 12, 200])
def test_the_sensors_table_fits_into_80_columns_without_cutting_a_number(sensors: int) -> None:
    text = drawn_sensors(books(sensors, 3344))
    assert max(map(len, text.splitlines())) <= 80
    for state in SENSOR_STATES:
        assert state in text
    for count in (3345, 345, 3000):
        assert str(count * sensors) in text, "the total"
    assert ("a-long-sensor" in text) == (sensors <= 12)
    assert "NOT balanced" not in text


def test_the_sensors_table_reports_a_loss_of_readings() -> None:
    assert "NOT balanced" in drawn_sensors(books(1, 4000))


def test_the_sensors_table_names_a_sensor_that_the_audit_left_out() -> None:
    entered = Ledger()
    entered.leave_out("hall")
    assert "no verdict on hall" in drawn_sensors(compute_balance(entered))
