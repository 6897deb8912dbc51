"""Tests of the assignment of partitions in a shared backtest."""

from __future__ import annotations

from aiokafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from training.backtest.assignor import shared_out

PARTITIONS = [TopicPartition(topic, number) for topic in ("frames", "frames.late") for number in range(3)]
reading = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([*PARTITIONS, None]), min_size=1)


@settings(max_examples=30)
@given(reading)
def test_each_backtest_partition_has_one_process_and_shares_differ_by_at_most_one_partition(
    reading: dict[str, TopicPartition | None],
) -> None:
    shares = shared_out(reading, PARTITIONS)
    assert sorted(partition for share in shares.values() for partition in share) == PARTITIONS
    sizes = [len(share) for share in shares.values()]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=30)
@given(reading)
def test_a_partition_stays_with_a_process_that_is_reading_the_partition(
    reading: dict[str, TopicPartition | None],
) -> None:
    shares = shared_out(reading, PARTITIONS)
    for kept in filter(None, reading.values()):
        first = min(member for member, partition in reading.items() if partition == kept)
        assert kept in shares[first]


def test_a_partition_that_no_longer_exists_is_not_assigned() -> None:
    assert shared_out({"a": TopicPartition("frames", 9)}, PARTITIONS) == {"a": PARTITIONS}


def test_a_backtest_process_beyond_the_number_of_partitions_is_assigned_none() -> None:
    assert shared_out({"a": None, "b": PARTITIONS[0]}, PARTITIONS[:1]) == {"a": [], "b": PARTITIONS[:1]}
