"""Vote over the labels that second models give to one track. Pure.

A single crop may be blurred, cut off or hidden, so one label is not reliable. The label of a track is stable: another
label replaces it only with a clear lead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ingest.contract.records import Attribute

MEMORY = 0.9
"""Weight of all earlier votes at each new vote. The last ten votes, two seconds at five frames per second, count for
about two thirds."""
LEAD = 1.5
"""Minimum ratio of another label's weight to the weight of the present label, at which the other label replaces it.
Two labels with equal scores that alternate reach a ratio of 1.1."""
_FORGOTTEN = 1e-3
"""Weight below which a label is dropped. A vote with a score of 1 decays to it in 66 votes."""


class VotedLabel(NamedTuple):
    """The stable label of an attribute, and its mean score over the last votes, in 0..1.

    A vote for another label counts as a score of 0.
    """

    label: str
    score: float


class LabelVote:
    """The vote of one attribute of one track."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._votes = 0.0
        self._label = ""

    @property
    def result(self) -> VotedLabel:
        """The stable label. Call only after the first vote."""
        return VotedLabel(self._label, self._weights[self._label] / self._votes)

    def add(self, scores: Mapping[str, float]) -> None:
        """Count the labels of one detection, by score in 0..1."""
        weights = {label: MEMORY * weight for label, weight in self._weights.items()}
        for label, score in scores.items():
            weights[label] = weights.get(label, 0.0) + score
        self._votes = MEMORY * self._votes + 1.0
        best = max(weights, key=lambda label: (weights[label], label))
        if not self._label or weights[best] >= LEAD * weights[self._label]:
            self._label = best
        kept = {label: weight for label, weight in weights.items() if weight >= _FORGOTTEN}
        self._weights = kept | {self._label: weights[self._label]}


class AttributeVotes:
    """The votes of all attributes of one track."""

    def __init__(self) -> None:
        self._votes: dict[str, LabelVote] = {}

    def add(self, attributes: Iterable[Attribute]) -> None:
        """Count the attributes of one detection. An attribute without a label does not vote."""
        scores: dict[str, dict[str, float]] = {}
        for one in attributes:
            if not one.missing:
                scores.setdefault(one.name, {})[one.label] = min(max(one.score, 0.0), 1.0)
        for name, labels in scores.items():
            self._votes.setdefault(name, LabelVote()).add(labels)

    @property
    def results(self) -> dict[str, VotedLabel]:
        """The stable label of each attribute that has a vote."""
        return {name: vote.result for name, vote in sorted(self._votes.items())}
