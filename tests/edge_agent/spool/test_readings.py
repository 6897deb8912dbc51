"""Tests of readings in the store: a record has many sequence numbers, and expiry accounts for each number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.spool.schema import Row
from edge_agent.spool.store import SpoolStore
from ingest.contract.codec import decode, encode
from ingest.contract.records import Heartbeat, Readings, WithheldInterval

EPOCH = 7
LONG = 10**12


def run(first: int, last: int, before: int | None = None, *, at_ns: int = 100) -> Row:
    """Return a row of readings. The readings from ``before`` up to ``first`` count as withheld."""
    rows = last - first + 1
    account = None
    if before is not None:
        counts = {"unusable": first - before}
        account = WithheldInterval(camera="hall", epoch=EPOCH, first=before, last=first - 1, counts=counts)
    readings = Readings(
        sensor="hall",
        epoch=EPOCH,
        seq=first,
        quantity="t",
        unit="Cel",
        times_ns=(1,) * rows,
        values=(1.0,) * rows,
        quality=(0,) * rows,
        account=account,
    )
    return Row("readings", "hall", EPOCH, last, at_ns, encode(readings))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[SpoolStore]:
    opened = SpoolStore(tmp_path / "spool.db", "agent")
    yield opened
    opened.close()


def accounts(spool: SpoolStore) -> list[WithheldInterval]:
    beats = [decode(Heartbeat, row.record) for row in spool.others(0, 100) if row.kind == "status"]
    assert not any(beat.accounts for beat in beats), "an account of readings among those of cameras"
    return [account for beat in beats for account in beat.readings.accounts]


def test_the_spool_depth_of_a_sensor_states_the_first_and_last_sequence_number_of_waiting_readings(
    spool: SpoolStore,
) -> None:
    spool.keep([run(5, 14, before=3), run(15, 24)])
    (depth,) = spool.depth("readings")
    assert (depth.name, depth.epoch, depth.first, depth.last, depth.frames) == ("hall", EPOCH, 3, 24, 2)
    assert not spool.depth()


def test_a_sensor_run_left_open_by_a_kill_ends_at_its_last_kept_reading(spool: SpoolStore) -> None:
    epoch = spool.begin_epoch("hall", "readings", EPOCH)
    spool.keep([run(0, 99)])
    spool.note_reported([("hall", epoch, 120)])
    (end,) = spool.unfinished("readings")
    assert (end.camera, end.last, end.reported, end.clean) == ("hall", 99, 120, False)
    assert not spool.unfinished()


def test_the_sequence_numbers_of_expired_readings_are_accounted_for(spool: SpoolStore) -> None:
    spool.keep([run(5, 14, before=3, at_ns=1), run(15, 24, at_ns=2), run(25, 34, at_ns=200)])
    assert spool.expire("readings", "hall", LONG, 100) == 2
    (account,) = accounts(spool)
    assert (account.camera, account.first, account.last) == ("hall", 3, 24)
    assert account.counts == {"unusable": 2, "expired": 20}
    assert [row.seq for row in spool.others(0, 100) if row.kind == "readings"] == [34]


def test_readings_over_the_byte_limit_of_the_spool_expire_unless_they_were_offered_to_kafka(
    spool: SpoolStore,
) -> None:
    spool.keep([run(0, 9), run(10, 19)])
    assert [row.seq for row in spool.others(0, 1)] == [9]
    spool.keep([run(20, 29)])
    assert spool.expire("readings", "hall", 1, 0) == 2
    (account,) = accounts(spool)
    assert (account.first, account.last, account.counts) == (10, 29, {"expired": 20})
    assert [row.seq for row in spool.others(0, 100) if row.kind == "readings"] == [9]
