"""Tests of the filter for repeated log records of libraries."""

from __future__ import annotations

import logging

from ingest.runtime.clock import ManualClock
from ingest.runtime.logs import REPEAT_INTERVAL_S, RepeatFilter


def record(name: str, message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, message, args, None)


def test_a_repeated_log_record_of_a_library_is_written_once_a_minute_with_its_count() -> None:
    clock, written = ManualClock(), list[str]()
    repeats = RepeatFilter(clock.monotonic)
    for _ in range(1000):
        clock.advance(0.125)
        repeated = record("aiokafka.client", "Unable connect to node with id %s: %s", 1, "refused")
        if repeats.filter(repeated):
            written.append(repeated.getMessage())
    assert written[0] == "Unable connect to node with id 1: refused"
    assert written[1:] == ["Unable connect to node with id 1: refused (repeated 479 times since)"] * 2


def test_log_records_are_written_immediately_unless_they_repeat_a_record_of_a_library() -> None:
    clock = ManualClock()
    repeats = RepeatFilter(clock.monotonic)
    assert repeats.filter(record("aiokafka", "one"))
    assert repeats.filter(record("aiokafka", "two"))
    assert not repeats.filter(record("aiokafka", "one"))
    assert all(repeats.filter(record("sightline.edge_agent.camera", "camera_reconnected")) for _ in range(3))
    clock.advance(REPEAT_INTERVAL_S)
    assert repeats.filter(record("aiokafka", "one"))


def test_a_log_record_whose_arguments_do_not_fit_its_format_is_filtered_without_an_error() -> None:
    """The handler reports a bad format on stderr; the library that logs it continues."""
    clock = ManualClock()
    repeats = RepeatFilter(clock.monotonic)
    for _ in range(3):
        assert repeats.filter(record("careless", "%d frames", "no"))
        assert not repeats.filter(record("careless", "%d frames", "no"))
        clock.advance(REPEAT_INTERVAL_S)


def test_the_filter_of_repeated_log_records_has_bounded_memory_if_messages_contain_numbers() -> None:
    repeats = RepeatFilter()
    assert all(repeats.filter(record("careless", f"took {n} ms")) for n in range(2000))
    assert len(repeats._seen) <= 256
