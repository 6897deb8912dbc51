"""Tests of partitioning and of the comparison with the broker's topics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.topics import (
    BATCHES,
    CO_PARTITIONED,
    CONFIG,
    FRAMES,
    RESULTS,
    STATUS,
    TOPICS,
    partition_for,
    require_topics,
    topic_differences,
)
from ingest.exceptions import TopicMismatch

GOOD = {name: topic.partitions or 4 for name, topic in TOPICS.items()}


@pytest.mark.parametrize(
    ("key", "murmur2"),
    [  # Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
@pytest.mark.parametrize("partitions", [1, 3, 16, 1000])
def test_a_camera_gets_the_partition_that_kafka_s_own_partitioner_chooses(
    key: str, murmur2: int, partitions: int
) -> None:
    assert partition_for(key, partitions) == (murmur2 & 0x7FFFFFFF) % partitions


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.integers(1, 64))
def test_a_camera_goes_to_its_pinned_partition_or_else_to_an_existing_partition(key: str, partitions: int) -> None:
    assert 0 <= partition_for(key, partitions) < partitions
    assert partition_for(key, partitions, {key: 99}) == 99
    assert partition_for(key, partitions, {key + "x": 99}) == partition_for(key, partitions)


def test_topics_that_match_the_contract_and_foreign_topics_are_not_reported_as_differences() -> None:
    assert topic_differences(GOOD) == []
    assert topic_differences({**GOOD, "somebody-elses": 3}) == []
    require_topics(GOOD)


def test_a_missing_topic_of_the_contract_is_reported() -> None:
    found = {name: count for name, count in GOOD.items() if name != STATUS}
    assert topic_differences(found) == ["status is missing: run `sightline topics create`"]


def test_a_single_partition_topic_with_two_partitions_is_reported() -> None:
    assert topic_differences({**GOOD, CONFIG: 2}) == ["config has 2 partitions, expected 1"]


@pytest.mark.parametrize("odd", CO_PARTITIONED)
def test_co_partitioned_topics_with_different_numbers_of_partitions_are_reported(odd: str) -> None:
    [problem] = topic_differences({**GOOD, odd: 5})
    assert problem.startswith("co-partitioned topics have different numbers of partitions")
    assert f"'{odd}': 5" in problem


def test_one_error_lists_all_differences_between_topics_and_contract() -> None:
    with pytest.raises(TopicMismatch) as raised:
        require_topics({name: count for name, count in {**GOOD, BATCHES: 3}.items() if name != STATUS})
    assert len(raised.value.differences) == 2
    assert "status is missing" in str(raised.value)
    assert "different numbers" in str(raised.value)


def test_the_retention_of_output_topics_is_at_least_that_of_their_input_topics() -> None:
    kept = {name: topic.retention_ms for name, topic in TOPICS.items()}
    assert kept[RESULTS] >= kept[FRAMES] >= kept[BATCHES]
    assert kept["events"] >= kept[RESULTS]
    assert kept["deadletter"] >= kept[FRAMES]
    assert kept[STATUS] >= kept[FRAMES]


def test_topic_settings_have_the_names_that_kafka_uses() -> None:
    assert TOPICS[CONFIG].settings()["cleanup.policy"] == "compact"
    assert TOPICS[FRAMES].settings()["retention.ms"] == "86400000"
    assert int(TOPICS[FRAMES].settings()["max.message.bytes"]) > 16 * 1024 * 1024


@pytest.mark.parametrize("name", TOPICS)
def test_retention_of_topics_uses_the_clock_of_the_broker(name: str) -> None:
    assert TOPICS[name].settings()["message.timestamp.type"] == "LogAppendTime"
