"""Tests of the order in which candidates are picked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from stream.labels.preference import Selection, parse_shares


@dataclass(frozen=True)
class Plain:
    """A candidate with given values."""

    key: str
    disagreement: float = 0.0
    missed: bool = False
    score: float = 0.9


def picked(candidates: list[Plain], shares: dict[str, float], count: int) -> list[tuple[str, str]]:
    selection = Selection(candidates, shares)
    found = []
    while len(found) < count and (pick := selection.next()):
        found.append((pick.candidate.key, pick.reason))
    return found


MANY = [
    Plain(str(n), disagreement=(n % 5 == 0) * 0.5, missed=n % 7 == 0, score=0.3 + 0.6 * (n % 10) / 10)
    for n in range(200)
]


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("random", {"random": 1.0}),
        ("disagreement=0.5, audit, random", {"disagreement": 0.5, "audit": 0.25, "random": 0.25}),
        ("uncertain=1", {"uncertain": 1.0}),
    ],
)
def test_selection_reasons_without_a_configured_share_divide_the_remainder_equally(
    text: str, shares: dict[str, float]
) -> None:
    assert parse_shares(text) == pytest.approx(shares)


@pytest.mark.parametrize(
    "text", ["", "colour=1", "random=0.5", "random=0.7,audit=0.7", "audit=1,random=x", "random,random"]
)
def test_unknown_reasons_and_shares_that_do_not_add_up_to_one_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_shares(text)


def test_each_selection_reason_has_its_configured_share_throughout_the_picks() -> None:
    shares = {"disagreement": 0.5, "audit": 0.25, "random": 0.25}
    found = picked(MANY, shares, 40)
    for count in (4, 20, 40):
        reasons = Counter(reason for _, reason in found[:count])
        assert reasons == {name: share * count for name, share in shares.items()}
    assert len({key for key, _ in found}) == 40


def test_the_largest_disagreements_and_the_lowest_scores_are_picked_first() -> None:
    few = [Plain("a", disagreement=0.2), Plain("b", disagreement=0.9), Plain("c", score=0.5), Plain("d", score=0.4)]
    assert picked(few, {"disagreement": 0.5, "uncertain": 0.5}, 9) == [
        ("b", "disagreement"),
        ("d", "uncertain"),
        ("a", "disagreement"),
        ("c", "uncertain"),
    ]


def test_the_share_of_a_reason_without_candidates_goes_to_the_other_reasons() -> None:
    plain = [Plain(str(n)) for n in range(10)]
    assert [reason for _, reason in picked(plain, {"disagreement": 0.9, "random": 0.1}, 20)] == ["random"] * 10


def test_a_refused_pick_is_replaced_by_another_pick_of_the_same_selection_reason() -> None:
    selection = Selection(MANY, {"disagreement": 0.5, "random": 0.5})
    reasons: Counter[str] = Counter()
    while sum(reasons.values()) < 20:
        pick = selection.next()
        assert pick is not None
        if int(pick.candidate.key) % 2:
            selection.refuse(pick)
        else:
            reasons[pick.reason] += 1
    assert reasons == {"disagreement": 10, "random": 10}


def test_picks_do_not_depend_on_the_order_of_the_candidates() -> None:
    shares = {"uncertain": 0.5, "random": 0.5}
    assert picked(MANY, shares, 50) == picked(MANY[::-1], shares, 50)
