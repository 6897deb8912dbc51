"""Vote over the labels that second-stage models give to one track. Pure.

A single crop may be blurred, cut off or hidden, so one label is not reliable. The label of a track is stable: another
label replaces the present label only with a clear lead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ingest.contract.records import Attribute

MEMORY = 0.9
"""Factor by which each new vote multiplies the weight of all earlier votes. The last ten votes, two seconds at five
frames per second, make up about two thirds of the total weight."""
LEAD = 1.5
"""Another label replaces the present label if its weight is at least this multiple of the present label's weight. If
two labels with equal scores alternate, the ratio of their weights reaches only 1.1."""
_FORGOTTEN = 1e-3
"""Weight below which a label is dropped. The weight of a vote with a score of 1 falls below ``_FORGOTTEN`` after 66
further votes."""


class VotedLabel(NamedTuple):
    """The stable label of an attribute, and the label's weighted mean score over the last votes, 0..1.

    In the mean score, a vote for another label counts as a score of 0.
    """

    label: str
    score: float


class LabelVote:
    """Counts the votes for the labels of one attribute of one track."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._votes = 0.0
        self._label = ""

    @property
    def result(self) -> VotedLabel:
        """The stable label; available only after the first vote."""
        return VotedLabel(self._label, self._weights[self._label] / self._votes)

    def add(self, scores: Mapping[str, float]) -> None:
        """Count one detection's labels; ``scores`` maps each label to its score, 0..1."""
        weights = {label: MEMORY * weight for label, weight in self._weights.items()}
        for label, score in scores.items():
            weights[label] = weights.get(label, 0.0) + score
        self._votes = MEMORY * self._votes + 1.0
        self._choose(weights)

    def after(self, earlier: LabelVote) -> LabelVote:
        """Return the vote that continues an ``earlier`` vote with the votes of this one."""
        found, decay = LabelVote(), 1.0 - (1.0 - MEMORY) * self._votes
        found._votes = decay * earlier._votes + self._votes
        labels = earlier._weights.keys() | self._weights.keys()
        weights = {
            label: decay * earlier._weights.get(label, 0.0) + self._weights.get(label, 0.0) for label in labels
        }
        found._label = earlier._label
        found._choose(weights)
        return found

    def _choose(self, weights: Mapping[str, float]) -> None:
        """Choose the stable label, and keep the weights that are not negligible."""
        best = max(weights, key=lambda label: (weights[label], label))
        if not self._label or weights[best] >= LEAD * weights[self._label]:
            self._label = best
        kept = {label: weight for label, weight in weights.items() if weight >= _FORGOTTEN}
        self._weights = kept | {self._label: weights[self._label]}


class AttributeVotes:
    """Counts the votes for the labels of all attributes of one track."""

    def __init__(self) -> None:
        self._votes: dict[str, LabelVote] = {}

    def add(self, attributes: Iterable[Attribute]) -> None:
        """Count the attributes of one detection. Skip an attribute without a label."""
        scores: dict[str, dict[str, float]] = {}
        for one in attributes:
            if not one.missing:
                scores.setdefault(one.name, {})[one.label] = min(max(one.score, 0.0), 1.0)
        for name, labels in scores.items():
            self._votes.setdefault(name, LabelVote()).add(labels)

    def after(self, earlier: AttributeVotes) -> AttributeVotes:
        """Return the votes that continue ``earlier`` votes with these votes."""
        found = AttributeVotes()
        found._votes = earlier._votes | {
            name: vote.after(earlier._votes[name]) if name in earlier._votes else vote
            for name, vote in self._votes.items()
        }
        return found

    @property
    def results(self) -> dict[str, VotedLabel]:
        """The stable label of each attribute with at least one vote, by attribute name."""
        return {name: vote.result for name, vote in sorted(self._votes.items())} if self._votes else {}
