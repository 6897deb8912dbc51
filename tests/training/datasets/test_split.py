"""Tests of the split by blocks of time and place."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from training.datasets.request import SPLITS
from training.datasets.split import TimeBlock, assign, near_border

SHARES = (0.7, 0.15, 0.15)
NAMES = ("car", "person", "dog")


def totals(assigned: dict[TimeBlock, str], labels: dict[TimeBlock, Counter[str]]) -> dict[str, Counter[str]]:
    found = {split: Counter[str]() for split in SPLITS}
    for block, split in assigned.items():
        found[split].update(labels[block])
    return found


@settings(max_examples=25)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9), min_size=1), min_size=3, max_size=30))
def test_each_split_has_a_block_of_time_and_the_order_of_blocks_does_not_matter(
    counts: list[dict[str, int]],
) -> None:
    labels = {TimeBlock("gate", number): Counter(one) for number, one in enumerate(counts)}
    found = assign(labels, SHARES)
    assert found.keys() == labels.keys()
    assert set(found.values()) == set(SPLITS)
    assert assign(dict(reversed(labels.items())), SHARES) == found


def test_each_label_has_about_the_wanted_share_in_each_split() -> None:
    labels = {TimeBlock("gate", n): Counter({"car": 10, **({"dog": 4} if n % 10 == 0 else {})}) for n in range(100)}
    found = totals(assign(labels, SHARES), labels)
    assert [found[split]["car"] for split in SPLITS] == [700, 150, 150]
    assert [found[split]["dog"] for split in SPLITS] == [28, 8, 4] or [found[s]["dog"] for s in SPLITS] == [28, 4, 8]


def test_blocks_of_time_with_near_duplicates_are_in_the_same_split() -> None:
    labels = {TimeBlock("gate", n): Counter(car=1) for n in range(20)}
    pairs = [(TimeBlock("gate", n), TimeBlock("gate", n + 10)) for n in range(10)]
    found = assign(labels, SHARES, pairs)
    assert all(found[one] == found[other] for one, other in pairs)


def test_held_out_blocks_of_time_are_in_the_test_split() -> None:
    labels = {TimeBlock(place, n): Counter(car=1) for place in ("gate", "yard") for n in range(10)}
    held_out = {block for block in labels if block.place == "yard"}
    assert {assign(labels, SHARES, (), held_out)[block] for block in held_out} == {"test"}


def test_no_example_is_given_to_a_split_without_a_share() -> None:
    labels = {TimeBlock("gate", n): Counter(car=1) for n in range(9)}
    assert set(assign(labels, (0.8, 0.2, 0.0)).values()) == {"train", "validation"}


def test_a_time_is_near_a_split_border_only_if_the_adjacent_block_is_in_another_split() -> None:
    first, second, third = (TimeBlock("gate", n) for n in range(3))
    assigned = {first: "train", second: "train", third: "test"}
    times = {at_s: near_border(at_s * 10**9, second, assigned, 100.0, 10.0) for at_s in (101, 150, 194, 195, 199)}
    assert times == {101: False, 150: False, 194: False, 195: True, 199: True}
    assert near_border(204 * 10**9, third, assigned, 100.0, 10.0)
    assert not near_border(205 * 10**9, third, assigned, 100.0, 10.0)


def test_a_gap_between_splits_that_is_longer_than_a_time_block_reaches_across_an_empty_block() -> None:
    first, third = TimeBlock("gate", 0), TimeBlock("gate", 2)
    assigned = {first: "train", third: "test"}
    kept = [at_s for at_s in range(10) if not near_border(at_s * 10**9, first, assigned, 10.0, 30.0)]
    kept += [at_s for at_s in range(20, 30) if not near_border(at_s * 10**9, third, assigned, 10.0, 30.0)]
    assert kept == []
    kept = [at_s for at_s in range(10) if not near_border(at_s * 10**9, first, assigned, 10.0, 16.0)]
    assert kept == list(range(7))
    kept = [at_s for at_s in range(20, 30) if not near_border(at_s * 10**9, third, assigned, 10.0, 16.0)]
    assert kept == list(range(23, 30))
