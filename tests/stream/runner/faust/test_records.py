"""Tests of the conversion of Faust events to records."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ingest.kafka.log import LogRecord
from ingest.kafka.settings import KafkaSettings
from stream.runner.faust.member import to_record


def _event(**fields: Any) -> Any:
    message = {"topic": "sightline.frames", "partition": 1, "offset": 7, "key": b"gate", "value": b"jpeg"}
    return SimpleNamespace(message=SimpleNamespace(**{**message, "headers": (), "timestamp": 1.5, **fields}))


def test_a_record_from_faust_has_its_contract_topic_and_its_time_in_ms() -> None:
    record = to_record(KafkaSettings(), _event(headers=(("lane", b"live"),)))
    assert record == LogRecord("frames", 1, 7, b"gate", b"jpeg", {"lane": b"live"}, 1500)


@pytest.mark.parametrize("headers", [(("lane", None), ("frame", b"f")), {"lane": None, "frame": b"f"}])
def test_a_record_header_without_a_value_gets_an_empty_value(headers: Any) -> None:
    assert to_record(KafkaSettings(), _event(headers=headers)).headers == {"lane": b"", "frame": b"f"}


@pytest.mark.parametrize("missing", [{"value": None}, {"headers": None}, {"timestamp": None}])
def test_a_missing_record_value_header_or_timestamp_becomes_empty(missing: dict[str, None]) -> None:
    record = to_record(KafkaSettings(), _event(**missing))
    assert record.value == (b"" if "value" in missing else b"jpeg")
    assert record.headers == {}
    assert record.timestamp_ms == (0 if "timestamp" in missing else 1500)
