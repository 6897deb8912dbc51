"""Tests that suspect, repeated and older readings are dropped and counted."""

from __future__ import annotations

from ingest.contract.records import GOOD, SUSPECT
from stream.epochs import QUIET_S, RUN_RECORDS
from stream.sense.clean import Cleaner
from tests.stream.sense.thermometer import SENSOR, STEP_NS, readings


def test_sensor_readings_out_of_range_or_suspect_are_dropped_and_counted() -> None:
    cleaner = Cleaner(SENSOR)
    kept = cleaner.clean(readings(0, [20.0, 999.0, float("nan"), 21.0, 22.0], [GOOD, GOOD, GOOD, SUSPECT, GOOD]), 0)
    assert kept.values == (20.0, 22.0)
    assert cleaner.dropped == {"range": 2, "suspect": 1}
    assert cleaner.clean(readings(3, [21.0, 22.0, 23.0]), 0) == ((5 * STEP_NS,), (23.0,))
    assert cleaner.dropped["repeat"] == 2


def test_readings_of_an_older_run_are_counted_separately_from_repeats() -> None:
    cleaner = Cleaner(SENSOR)
    cleaner.clean(readings(0, [20.0, 21.0], epoch=7), 0)
    assert cleaner.clean(readings(2, [22.0] * 3, epoch=6), 0) == ((), ())
    assert cleaner.dropped == {"old-epoch": 3}
    assert cleaner.clean(readings(0, [20.0, 21.0], epoch=6), 0) == ((), ())
    assert cleaner.dropped == {"old-epoch": 3, "repeat": 2}


def lower_epoch_dropped(columns: int, pause_s: float) -> int:
    """After a pause, clean ``columns`` columns of a lower epoch with one reading each, and return how many readings
    are dropped."""
    cleaner = Cleaner(SENSOR)
    cleaner.clean(readings(0, [20.0], epoch=7), 0)
    for seq in range(columns):
        cleaner.clean(readings(seq, [20.0], epoch=6), round(pause_s * 1000) + seq)
    return cleaner.dropped["old-epoch"]


def test_readings_of_a_run_with_a_lower_number_are_accepted_when_the_present_run_is_silent() -> None:
    """A new spool or a corrected clock gives a sensor a lower epoch than before."""
    assert lower_epoch_dropped(columns=10, pause_s=QUIET_S) == 0
    assert lower_epoch_dropped(columns=10, pause_s=QUIET_S - 1) == 10


def test_readings_of_a_run_with_a_lower_number_are_accepted_after_enough_consecutive_records() -> None:
    assert lower_epoch_dropped(columns=2 * RUN_RECORDS, pause_s=0.0) == RUN_RECORDS - 1


def test_sensor_records_of_an_older_run_among_those_of_the_present_run_are_ignored() -> None:
    cleaner = Cleaner(SENSOR)
    for seq in range(2 * RUN_RECORDS):
        assert cleaner.clean(readings(seq, [20.0], epoch=7), 0).values
        assert not cleaner.clean(readings(seq, [20.0], epoch=6), 0).values
