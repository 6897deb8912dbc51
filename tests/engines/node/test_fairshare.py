"""Tests of the shares of device time: equal in a level, a floor for each lower level, deadlines between equals."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.node.fairshare import FLOOR_SHARE, QUANTUM_S, Demand, FairShares

costs = st.lists(st.floats(0.001, 0.05), min_size=2, max_size=5)


def used_s(levels: list[int], costs_s: list[float], seconds: float, seed: int) -> Counter[int]:
    """Return the device time of queues that all wait for ever. A batch of queue n takes ``costs_s[n]``."""
    shares, used, chance = FairShares[int](), Counter[int](), random.Random(seed)
    while used.total() < seconds:
        demands = {n: Demand(level, chance.randrange(1000)) for n, level in enumerate(levels)}
        chosen = shares.choose(demands)
        shares.charge(chosen, levels[chosen], costs_s[chosen])
        used[chosen] += costs_s[chosen]
    return used


@settings(max_examples=20)
@given(costs_s=costs, seed=st.integers(0, 99))
def test_used_device_times_of_queues_of_equal_priority_differ_by_at_most_a_quantum_plus_a_batch(
    costs_s: list[float], seed: int
) -> None:
    used = used_s([0] * len(costs_s), costs_s, 1.5, seed)
    assert max(used.values()) - min(used[n] for n in range(len(costs_s))) <= QUANTUM_S + max(costs_s) + 1e-9


@settings(max_examples=20)
@given(costs_s=st.lists(st.floats(0.001, 0.05), min_size=4, max_size=4), seed=st.integers(0, 99))
def test_each_lower_priority_level_gets_its_minimum_share_and_the_highest_level_the_rest(
    costs_s: list[float], seed: int
) -> None:
    total_s = 2.0
    used = used_s([0, 1, 2, 3], costs_s, total_s, seed)
    for lower in (1, 2, 3):
        assert used[lower] == pytest.approx(FLOOR_SHARE * total_s, abs=2 * max(costs_s))


def test_among_queues_with_about_equal_device_time_the_earlier_deadline_goes_first() -> None:
    shares = FairShares[str]()
    demands = {"a": Demand(0, 20), "b": Demand(0, 10)}
    assert shares.choose(demands) == "b"
    shares.charge("b", 0, QUANTUM_S / 2)
    assert shares.choose(demands) == "b"
    shares.charge("b", 0, QUANTUM_S)
    assert shares.choose(demands) == "a"


def test_an_empty_queue_gets_no_credit_of_device_time() -> None:
    shares = FairShares[str]()
    for _ in range(100):
        shares.choose({"busy": Demand(0, 5)})
        shares.charge("busy", 0, 0.1)
    both = {"busy": Demand(0, 5), "new": Demand(0, 9)}
    chosen = Counter[str]()
    for _ in range(20):
        one = shares.choose(both)
        chosen[one] += 1
        shares.charge(one, 0, 0.1)
    assert chosen == {"busy": 10, "new": 10}


def test_a_lower_priority_level_whose_queue_empties_after_each_batch_stays_within_its_minimum_share() -> None:
    """A level whose queue is empty after each batch must not lose the memory of the device time that it used."""
    shares, used = FairShares[str](), Counter[str]()
    for turn in range(1000):
        demands = {"high": Demand(0, 0)} | ({"low": Demand(2, 0)} if turn % 2 else {})
        chosen = shares.choose(demands)
        shares.charge(chosen, demands[chosen].level, 0.01)
        used[chosen] += 1
    assert used["low"] <= FLOOR_SHARE * 1000 + 1


def test_a_lower_priority_level_gets_no_credit_for_time_in_which_its_queues_were_empty() -> None:
    shares = FairShares[str]()
    both, chosen = {"high": Demand(0, 0), "low": Demand(2, 0)}, Counter[str]()
    for turn in range(1020):
        demands = both if turn == 0 or turn >= 1000 else {"high": Demand(0, 0)}
        one = shares.choose(demands)
        shares.charge(one, demands[one].level, 0.01)
        chosen[one] += 1
    assert chosen["low"] <= FLOOR_SHARE * 20 + 1


def test_a_device_without_other_work_serves_a_low_priority_level_fully() -> None:
    shares = FairShares[str]()
    for _ in range(50):
        assert shares.choose({"low": Demand(2, 0)}) == "low"
        shares.charge("low", 2, 0.1)
    shares.choose({"low": Demand(2, 0), "high": Demand(0, 0)})
    shares.charge("high", 0, 0.1)
    assert shares.choose({"low": Demand(2, 0), "high": Demand(0, 0)}) == "low"
