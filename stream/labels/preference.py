"""The order in which candidates for a data set are picked: useful ones first, mixed by configured shares. Pure.

A model learns most from examples on which models disagree or are uncertain (query by committee and uncertainty
sampling; Settles, "Active Learning Literature Survey", 2009), and from objects that the motion gate missed. A share
of random examples keeps the data set similar to the cameras' pictures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from stream.labels.candidates import share_of

DISAGREEMENT, AUDIT, UNCERTAIN, RANDOM = "disagreement", "audit", "uncertain", "random"
REASONS = (DISAGREEMENT, AUDIT, UNCERTAIN, RANDOM)
USUAL_SHARES: Mapping[str, float] = {DISAGREEMENT: 0.3, AUDIT: 0.2, UNCERTAIN: 0.3, RANDOM: 0.2}
UNCERTAIN_BELOW = 0.6
"""Score below which a label counts as uncertain. Below this score, both right and wrong detections are frequent."""


class Preferable(Protocol):
    """A frame or object that can be picked for a data set."""

    @property
    def key(self) -> str:
        """Text that identifies the candidate."""

    @property
    def disagreement(self) -> float:
        """Weight of the difference between two models; 0 without a difference."""

    @property
    def missed(self) -> bool:
        """Whether the motion gate would have missed the frame."""

    @property
    def score(self) -> float:
        """The lowest score, 0..1."""


C = TypeVar("C", bound=Preferable)


class Pick(NamedTuple, Generic[C]):
    """A candidate that was picked for a data set, and the reason for the choice."""

    candidate: C
    reason: str


def parse_shares(text: str) -> dict[str, float]:
    """Return the share of picks for each reason from a text such as ``disagreement=0.5,random=0.5``.

    Reasons that are named without a share divide the rest equally. All shares must add up to 1. Raise ValueError.
    """
    expected = f"names from {', '.join(REASONS)}, each perhaps with a share, such as disagreement=0.5,random=0.5"
    shares: dict[str, float | None] = {}
    for part in text.split(","):
        name, is_given, number = (piece.strip() for piece in part.partition("="))
        if name not in REASONS or name in shares:
            raise ValueError(f"{part.strip()!r}: expected {expected}")
        try:
            shares[name] = float(number) if is_given else None
        except ValueError:
            raise ValueError(f"{part.strip()!r}: expected {expected}") from None
    given = sum(share for share in shares.values() if share is not None)
    open_names = [name for name, share in shares.items() if share is None]
    rest = (1.0 - given) / len(open_names) if open_names else 0.0
    found = {name: rest if share is None else share for name, share in shares.items()}
    if min(found.values()) < 0.0 or abs(sum(found.values()) - 1.0) > 1e-6:
        raise ValueError(f"shares {found}: expected shares from 0 to 1 that add up to 1")
    return found


class Selection(Generic[C]):
    """Picks candidates for a data set one after the other, so that after any number of picks each reason has about
    its share.

    If no candidates are left for a reason, the other reasons take its share. The order of the picks depends on the
    candidates alone.
    """

    def __init__(self, candidates: Iterable[C], shares: Mapping[str, float]) -> None:
        found = sorted(candidates, key=lambda one: share_of(one.key))
        self._shares = shares
        self._queues = {name: list(reversed(_ORDERS[name](found))) for name in REASONS if shares.get(name, 0.0) > 0.0}
        self._picked: set[str] = set()
        self._counts: Counter[str] = Counter()

    def next(self) -> Pick[C] | None:
        """Return the next picked candidate; None if no candidates are left."""
        while self._queues:
            total = sum(self._counts.values()) + 1
            reason = max(self._queues, key=lambda name: self._shares[name] * total - self._counts[name])
            while queue := self._queues[reason]:
                one = queue.pop()
                if one.key not in self._picked:
                    self._picked.add(one.key)
                    self._counts[reason] += 1
                    return Pick(one, reason)
            del self._queues[reason]
        return None

    def refuse(self, pick: Pick[C]) -> None:
        """Note that a picked candidate cannot be used, so that its reason gets another pick."""
        self._counts[pick.reason] -= 1


def _disagreeing(found: Sequence[C]) -> list[C]:
    return sorted((one for one in found if one.disagreement > 0.0), key=lambda one: -one.disagreement)


def _missed(found: Sequence[C]) -> list[C]:
    return [one for one in found if one.missed]


def _uncertain(found: Sequence[C]) -> list[C]:
    return sorted((one for one in found if one.score < UNCERTAIN_BELOW), key=lambda one: one.score)


_ORDERS: Mapping[str, Callable[[Sequence[C]], list[C]]] = {
    DISAGREEMENT: _disagreeing,
    AUDIT: _missed,
    UNCERTAIN: _uncertain,
    RANDOM: list,
}
