"""Split the examples of a data set into training, validation and test by blocks of time and by place. Pure.

Neighbouring frames of a camera are almost equal, so a random split would test a model on pictures that it has seen.
All examples of one block of time at one place are in the same split, and examples near the border of two blocks in
different splits are left out. The blocks are assigned so that each label has about the wanted shares, by iterative
stratification (Sechidis, Tsoumakas, Vlahavas, "On the Stratification of Multi-Label Data", 2011).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from stream.labels.candidates import share_of
from training.datasets.request import SPLITS

TEST = SPLITS[2]


class TimeBlock(NamedTuple):
    """A period of fixed length at one place, which several cameras may watch. ``number`` is the Unix time divided by
    the length of the block, rounded down."""

    place: str
    number: int


def block_of(place: str, captured_ns: int, block_s: float) -> TimeBlock:
    """Return the block of time and place that an example belongs to."""
    return TimeBlock(place, captured_ns // round(block_s * 1e9))


def assign(
    labels: Mapping[TimeBlock, Counter[str]],
    shares: Sequence[float],
    together: Iterable[tuple[TimeBlock, TimeBlock]] = (),
    held_out: Collection[TimeBlock] = (),
) -> dict[TimeBlock, str]:
    """Return the split of each block of examples: training, validation or test.

    ``labels`` counts the labels in each block, ``shares`` has the shares of training, validation and test, and the
    two blocks of each pair in ``together`` get the same split. The blocks ``held_out``, and blocks that are together
    with them, are in the test split. If there are enough blocks, each split with a share above 0 has at least one
    block.
    """
    groups = _groups(labels, together)
    found: dict[TimeBlock, str] = {}
    counts = {split: Counter[str]() for split in SPLITS}
    open_groups = []
    for group in groups:
        if any(block in held_out for block in group):
            _put(group, TEST, labels, found, counts)
        else:
            open_groups.append(group)
    totals = sum(labels.values(), Counter[str]())
    sizes = {id(group): sum(labels[block].total() for block in group) for group in open_groups}
    rarest = {
        id(group): min((totals[name], name) for block in group for name in labels[block]) for group in open_groups
    }
    open_groups.sort(key=lambda group: (rarest[id(group)], -sizes[id(group)], share_of(str(group[0]))))
    for group in open_groups:
        name = rarest[id(group)][1]
        split = max(
            (one for one, share in zip(SPLITS, shares, strict=True) if share > 0.0),
            key=lambda one: _need(one, name, shares, totals, counts),
        )
        _put(group, split, labels, found, counts)
    _fill_empty(open_groups, shares, found, sizes)
    return found


def near_border(
    at_ns: int, block: TimeBlock, assigned: Mapping[TimeBlock, str], block_s: float, gap_s: float
) -> bool:
    """Return whether a time is less than half of ``gap_s`` from the border of its block to a block that is in another
    split. If there are blocks without examples between two blocks, the border is in their middle."""
    length_ns = round(block_s * 1e9)
    since_begin_ns = at_ns - block.number * length_ns
    half_ns = gap_s * 0.5e9
    own = assigned[block]
    for step in range(1, math.ceil(gap_s * 1e9 / length_ns) + 1):
        before, after = (assigned.get(TimeBlock(block.place, block.number + sign * step), own) for sign in (-1, 1))
        between_ns = (step - 1) * length_ns / 2
        if before != own and since_begin_ns + between_ns < half_ns:
            return True
        if after != own and length_ns - since_begin_ns + between_ns <= half_ns:
            return True
    return False


def _need(
    split: str, name: str, shares: Sequence[float], totals: Counter[str], counts: Mapping[str, Counter[str]]
) -> tuple[float, float]:
    """Return how many examples a split still needs: of the label ``name``, and in total."""
    share = shares[SPLITS.index(split)]
    return share * totals[name] - counts[split][name], share * totals.total() - counts[split].total()


def _put(
    group: Sequence[TimeBlock],
    split: str,
    labels: Mapping[TimeBlock, Counter[str]],
    found: dict[TimeBlock, str],
    counts: Mapping[str, Counter[str]],
) -> None:
    for block in group:
        found[block] = split
        counts[split].update(labels[block])


def _fill_empty(
    groups: Sequence[Sequence[TimeBlock]],
    shares: Sequence[float],
    found: dict[TimeBlock, str],
    sizes: Mapping[int, int],
) -> None:
    """Give each empty split with a share above 0 the smallest group of blocks of a split with several groups."""
    for split, share in zip(SPLITS, shares, strict=True):
        if share <= 0.0 or split in found.values():
            continue
        per_split = Counter(found[group[0]] for group in groups)
        spare = [group for group in groups if per_split[found[group[0]]] > 1]
        if spare:
            for block in min(spare, key=lambda group: (sizes[id(group)], group[0])):
                found[block] = split


def _groups(
    labels: Mapping[TimeBlock, Counter[str]], together: Iterable[tuple[TimeBlock, TimeBlock]]
) -> list[list[TimeBlock]]:
    """Return the groups of blocks that must be in the same split, found by union-find."""
    parents = {block: block for block in labels}

    def root(block: TimeBlock) -> TimeBlock:
        while parents[block] != block:
            parents[block] = parents[parents[block]]
            block = parents[block]
        return block

    for one, other in together:
        parents[root(one)] = root(other)
    found: defaultdict[TimeBlock, list[TimeBlock]] = defaultdict(list)
    for block in sorted(labels):
        found[root(block)].append(block)
    return list(found.values())
