"""What a library says again and again."""

from __future__ import annotations

import logging

from ingest.runtime.clock import ManualClock
from ingest.runtime.logs import REPEAT_INTERVAL_S, RepeatFilter


def record(name: str, message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, __file__, 1, message, args, None)


def test_a_library_says_the_same_thing_once_a_minute_and_how_often() -> None:
    clock, written = ManualClock(), list[str]()
    seldom = RepeatFilter(clock.monotonic)
    for _ in range(1000):
        clock.advance(0.125)
        said = record("aiokafka.client", "Unable connect to node with id %s: %s", 1, "refused")
        if seldom.filter(said):
            written.append(said.getMessage())
    assert written[0] == "Unable connect to node with id 1: refused"
    assert written[1:] == ["Unable connect to node with id 1: refused (said 479 times more since)"] * 2


def test_another_thing_is_said_at_once_and_so_is_all_that_is_our_own() -> None:
    clock = ManualClock()
    seldom = RepeatFilter(clock.monotonic)
    assert seldom.filter(record("aiokafka", "one"))
    assert seldom.filter(record("aiokafka", "two"))
    assert not seldom.filter(record("aiokafka", "one"))
    assert all(seldom.filter(record("sightline.edge_agent.camera", "back")) for _ in range(3))
    clock.advance(REPEAT_INTERVAL_S)
    assert seldom.filter(record("aiokafka", "one"))


def test_what_cannot_be_put_together_is_no_error_of_the_library_that_says_it() -> None:
    """A handler tells of such a thing on standard error, and whoever logs goes on."""
    clock = ManualClock()
    seldom = RepeatFilter(clock.monotonic)
    for _ in range(3):
        assert seldom.filter(record("careless", "%d frames", "no"))
        assert not seldom.filter(record("careless", "%d frames", "no"))
        clock.advance(REPEAT_INTERVAL_S)


def test_what_is_remembered_is_bounded_though_a_library_writes_numbers_into_what_it_says() -> None:
    seldom = RepeatFilter()
    assert all(seldom.filter(record("careless", f"took {n} ms")) for n in range(2000))
    assert len(seldom._said) <= 256
