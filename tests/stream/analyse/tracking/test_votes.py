"""Tests of the votes over the labels of second models."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.records import Attribute
from stream.analyse.tracking.votes import LEAD, MEMORY, AttributeVotes, LabelVote, VotedLabel

scores = st.floats(0.01, 1.0)
votes = st.lists(st.tuples(st.sampled_from("abc"), scores), min_size=1, max_size=60)


def voted(*found: tuple[str, float]) -> LabelVote:
    vote = LabelVote()
    for label, score in found:
        vote.add({label: score})
    return vote


def type_of(label: str, score: float = 0.9) -> Attribute:
    return Attribute(name="type", label=label, score=score, model="m@1")


@given(votes)
def test_the_label_of_a_track_is_one_of_its_votes_and_its_score_is_at_most_the_highest_score(
    found: list[tuple[str, float]],
) -> None:
    label, score = voted(*found).result
    own = [each for name, each in found if name == label]
    assert own
    assert 0.0 < score <= max(own) + 1e-9


@given(st.sampled_from("abc"), scores, st.integers(1, 100))
def test_label_votes_that_agree_give_their_label_and_score(label: str, score: float, count: int) -> None:
    assert voted(*[(label, score)] * count).result == VotedLabel(label, pytest.approx(score))


@given(votes, st.sampled_from("abc"), scores)
def test_one_vote_replaces_the_label_of_a_track_only_with_a_clear_lead(
    found: list[tuple[str, float]], label: str, score: float
) -> None:
    before, after = voted(*found), voted(*found, (label, score))
    if after.result.label != before.result.label:
        weights = after._weights
        assert after.result.label == label
        assert weights[label] >= LEAD * weights.get(before.result.label, 0.0)


@given(scores, st.integers(1, 60))
def test_label_votes_that_alternate_with_equal_scores_keep_the_first_label(score: float, rounds: int) -> None:
    assert voted(*[("a", score), ("b", score)] * rounds).result.label == "a"


@given(st.integers(1, 200), scores)
def test_another_label_with_the_same_score_replaces_the_track_label_after_a_bounded_number_of_votes(
    count: int, score: float
) -> None:
    # after n votes the other weight is 1-m^n, and the old one at most m^n, in units of a full vote
    enough = math.ceil(math.log(1.0 / (1.0 + LEAD)) / math.log(MEMORY))
    assert voted(*[("a", score)] * count, *[("b", score)] * (enough + 1)).result.label == "b"


def test_a_confident_label_vote_counts_more_than_several_doubtful_votes() -> None:
    assert voted(("van", 0.3), ("van", 0.3), ("car", 0.95)).result.label == "car"


def test_a_label_that_is_no_longer_detected_loses_its_votes() -> None:
    vote = voted(("a", 1.0), *[("b", 1.0)] * 100)
    assert vote._weights.keys() == {"b"}


def test_attributes_without_a_label_cast_no_vote() -> None:
    found = AttributeVotes()
    found.add([Attribute(name="type", missing="small")])
    assert found.results == {}
    found.add([type_of("van"), Attribute(name="plate", missing="no_model")])
    found.add([Attribute(name="type", missing="unsure")])
    assert found.results == {"type": VotedLabel("van", pytest.approx(0.9))}


def test_each_attribute_of_a_track_has_a_vote_of_its_own() -> None:
    found = AttributeVotes()
    found.add([type_of("van"), Attribute(name="colour", label="red", score=0.5)])
    assert {name: voted.label for name, voted in found.results.items()} == {"type": "van", "colour": "red"}


def test_several_labels_of_one_detection_count_as_one_label_vote() -> None:
    """A second model with independent labels may give several labels to one object."""
    found = AttributeVotes()
    for _ in range(5):
        found.add([type_of("dent", 0.8), type_of("scratch", 0.6)])
    assert found.results["type"] == VotedLabel("dent", pytest.approx(0.8))


def test_votes_that_continue_earlier_votes_have_the_score_of_all_votes_in_a_row() -> None:
    votes = [0.9, 0.4, 0.8, 0.7, 0.6]
    whole, first, second = LabelVote(), LabelVote(), LabelVote()
    for n, score in enumerate(votes):
        whole.add({"van": score})
        (first if n < 2 else second).add({"van": score})
    joined = second.after(first).result
    assert joined == ("van", pytest.approx(whole.result.score))
