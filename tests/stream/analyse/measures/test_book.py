"""Tests of the written minutes: corrections by late frames, and repetitions after a restart."""

from __future__ import annotations

import tracemalloc

import pytest

from ingest.contract.codec import encode_json
from ingest.contract.records.measure import Measure, MinuteTally
from ingest.kafka.log import LogRecord
from ingest.site.measure import MeasureConfig
from stream.analyse.measures import book
from stream.analyse.measures.book import MeasureBook
from stream.analyse.measures.minute import ClosedMinute

LINE = MeasureConfig(name="m", camera="c", pipeline="p", type="line", start=(0.5, 1.0), end=(0.5, 0.0))


def minute(count: float, frame: str, observed_s: float = 60.0) -> ClosedMinute:
    return ClosedMinute("m", 0, MinuteTally(sums={"car.forward": count}, observed_s=observed_s, closed_by=(frame,)))


def add(book: MeasureBook, one: ClosedMinute, lane: str = "live") -> Measure:
    found = book.add(one, lane, LINE, "yard")
    assert found is not None
    return found


def written(measure: Measure) -> LogRecord:
    return LogRecord("measures", 0, 0, b"c", encode_json(measure))


def test_late_frames_correct_the_counts_of_a_minute_in_a_record_marked_as_corrected() -> None:
    book = MeasureBook()
    live = add(book, minute(3, "1-100", 40.0))
    late = add(book, minute(2, "1-80", 20.0), "late")
    assert (live.values, live.observed, live.revision, live.corrected) == ({"car.forward": 3}, 0.6667, 0, False)
    assert (late.values, late.observed, late.revision, late.corrected) == ({"car.forward": 5}, 1.0, 1, True)
    assert live.id != late.id


def test_the_counts_of_a_minute_are_written_only_once_if_the_same_frame_closes_the_minute_twice() -> None:
    book = MeasureBook()
    add(book, minute(3, "1-100"))
    assert book.add(minute(3, "1-100"), "live", LINE, "yard") is None


def test_a_restart_continues_with_the_counts_of_the_minutes_already_written() -> None:
    before = MeasureBook()
    live = add(before, minute(3, "1-100", 40.0))
    after = MeasureBook([written(live)])
    assert after.add(minute(3, "1-100", 40.0), "live", LINE, "yard") is None
    assert add(after, minute(2, "1-80", 20.0), "late") == add(before, minute(2, "1-80", 20.0), "late")


def test_counts_from_two_runs_of_the_capture_in_one_minute_are_added() -> None:
    book = MeasureBook()
    add(book, minute(3, "1-100", 30.0))
    both = add(book, minute(1, "2-50", 25.0))
    assert (both.values, both.revision, both.corrected) == ({"car.forward": 4}, 1, True)
    assert book.add(minute(3, "1-100", 30.0), "live", LINE, "yard") is None


def test_minutes_that_the_stage_sense_wrote_take_no_place_of_minutes_that_can_be_corrected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(book, "KEPT_MINUTES", 1)
    live = add(MeasureBook(), minute(3, "1-100"))
    sensed = live.model_copy(update={"name": "oven", "parts": {}})
    after = MeasureBook([written(live), written(sensed)])
    assert after.add(minute(3, "1-100"), "live", LINE, "yard") is None


def test_unreadable_measures_on_the_topic_are_ignored() -> None:
    assert add(MeasureBook([LogRecord("measures", 0, 0, b"c", b"\xff{")]), minute(1, "1-1")).revision == 0


def test_the_counts_of_a_minute_kept_for_corrections_take_about_a_kilobyte_of_memory() -> None:
    book, minutes = MeasureBook(), 500
    add(book, minute(3, "1-0"))
    tracemalloc.start()
    for n in range(1, minutes + 1):
        add(book, ClosedMinute("m", n * 60 * 10**9, minute(3 + n, f"1-{n}").tally))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used / minutes < 1500
