"""The sensors' ledger in a terminal: it fits in 80 columns and says what the audit says."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from deploy.local.demo.sensortable import SENSOR_STATES, sensor_table
from ingest.contract.identity import FrameId
from ingest.contract.records import Account, EpochEnd
from ingest.ledger.balance import Balance, compute_balance
from ingest.ledger.states import Ledger


def books(sensors: int, last: int) -> Balance:
    """Sensors of which the first 3,000 readings are in the log, and 345 before them were unusable."""
    entered = Ledger()
    for number in range(sensors):
        name = f"a-long-sensor-name-{number}"
        account = Account(camera=name, epoch=1, first=0, last=344, counts={"unusable": 300, "outage": 45})
        entered.add_readings(FrameId(name, 1, 345), 3344, account)
        entered.add_epoch_end(EpochEnd(camera=name, epoch=1, last=last, clean=True))
    return compute_balance(entered)


def drawn(balance: Balance) -> str:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(sensor_table(balance.to_dict()))
    return console.export_text()


@pytest.mark.parametrize("sensors", [1, 12, 200])
def test_every_state_is_whole_in_80_columns(sensors: int) -> None:
    text = drawn(books(sensors, 3344))
    assert max(map(len, text.splitlines())) <= 80
    for state in SENSOR_STATES:
        assert state in text
    for count in (3345, 345, 3000):
        assert str(count * sensors) in text, "the total"
    assert ("a-long-sensor" in text) == (sensors <= 12)
    assert "NOT balanced" not in text


def test_a_loss_is_said() -> None:
    assert "NOT balanced" in drawn(books(1, 4000))


def test_a_sensor_that_cannot_be_balanced_is_named() -> None:
    entered = Ledger()
    entered.leave_out("hall")
    assert "nothing can be said of hall" in drawn(compute_balance(entered))
