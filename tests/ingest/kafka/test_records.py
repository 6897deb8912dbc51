"""Tests of the conversion of aiokafka's records."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from ingest.kafka.kafkalog import from_consumer
from ingest.kafka.log import LogRecord
from ingest.kafka.settings import KafkaSettings


def record(**fields: Any) -> ConsumerRecord[bytes, bytes]:
    given = {"value": b"jpeg", "headers": (), **fields}
    return ConsumerRecord(
        topic="sightline.frames",
        partition=1,
        offset=7,
        timestamp=1500,
        timestamp_type=0,
        key=b"gate",
        checksum=None,
        serialized_key_size=4,
        serialized_value_size=4,
        **given,
    )


def test_the_topic_prefix_is_removed_from_the_topic_of_a_kafka_record() -> None:
    found = from_consumer(KafkaSettings(), record(headers=(("lane", b"live"),)))
    assert found == LogRecord("frames", 1, 7, b"gate", b"jpeg", {"lane": b"live"}, 1500)


def test_a_kafka_record_without_a_value_gets_an_empty_value() -> None:
    assert from_consumer(KafkaSettings(), record(value=None)).value == b""


@pytest.mark.parametrize("headers", [(("lane", None), ("frame", b"f"))])
def test_a_record_header_without_a_value_gets_an_empty_value(headers: Any) -> None:
    assert from_consumer(KafkaSettings(), record(headers=headers)).headers == {"lane": b"", "frame": b"f"}
