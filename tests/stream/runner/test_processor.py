"""Tests of the base processors: parking of failures, and the defaults of a processor that holds no record back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest
from structlog.testing import capture_logs

from ingest.contract import headers as h
from ingest.contract.topics import DEADLETTER, FRAMES
from ingest.kafka.log import LogRecord
from stream.runner.processor import MAX_ERROR_CHARS, ParkingProcessor, Work

RECORD = LogRecord(FRAMES, 2, 7, b"gate", b"bytes")


class Failing(ParkingProcessor[None]):
    """A processor that raises one error for every record, and another error for every outcome."""

    def __init__(self, decide: BaseException | None = None, emit: Exception | None = None) -> None:
        super().__init__("failing")
        self._decide_error = decide
        self._emit_error = emit

    def _decide(self, record: LogRecord) -> None:
        if self._decide_error:
            raise self._decide_error

    def _emit(self, record: LogRecord, outcome: None) -> Sequence[Work]:
        if self._emit_error:
            raise self._emit_error
        return ()


class EndsByOSError(Failing):
    """A processor that an OSError ends, because a full disk, for example, is not the fault of a record."""

    ends: ClassVar[tuple[type[Exception], ...]] = (MemoryError, OSError)


def test_a_record_whose_processing_fails_becomes_a_dead_letter_and_is_finished() -> None:
    ((letter,), done) = _only(Failing(RuntimeError("bad frame")).process(RECORD))
    assert (letter.topic, letter.value, letter.key, done) == (DEADLETTER, b"bytes", b"gate", (7,))
    failure = h.read_failure(letter.headers)
    assert failure
    assert (failure.topic, failure.partition, failure.offset) == (FRAMES, 2, 7)
    assert (failure.stage, failure.error, failure.message) == ("failing", "RuntimeError", "bad frame")


def test_a_record_that_becomes_a_dead_letter_is_logged_with_its_offset_and_a_short_error() -> None:
    with capture_logs() as entries:
        Failing(RuntimeError("x" * 1_000_000)).process(RECORD)
    (entry,) = entries
    assert (entry["event"], entry["stage"]) == ("record_parked", "failing")
    assert (entry["topic"], entry["partition"], entry["offset"]) == (FRAMES, 2, 7)
    assert len(entry["error"]) == MAX_ERROR_CHARS


def test_a_memory_error_makes_no_dead_letter_and_ends_the_process() -> None:
    with pytest.raises(MemoryError):
        Failing(MemoryError()).process(RECORD)


def test_an_error_that_is_not_the_fault_of_the_record_ends_the_process() -> None:
    assert EndsByOSError(ValueError()).process(RECORD)
    with pytest.raises(OSError, match="store"):
        EndsByOSError(OSError("store")).process(RECORD)


def test_an_error_while_output_is_created_ends_the_process() -> None:
    with pytest.raises(RuntimeError, match="batch"):
        Failing(emit=RuntimeError("batch")).process(RECORD)


def test_a_stream_processor_holds_back_no_record_by_default() -> None:
    processor = Failing()
    assert (processor.tick(), processor.flush(), processor.deadline) == ((), (), None)


def _only(works: Sequence[Work]) -> tuple[tuple, tuple[int, ...]]:
    (work,) = works
    return work.records, work.done
