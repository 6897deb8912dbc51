"""Tests of the comparison of two models: accuracy, agreement of classes, and agreement of objects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.exceptions import OptimiseFailed
from engines.optimise.judge import accuracy, class_agreement, matched, object_agreement
from ingest.contract.records import Box, Detection

LABELS = ("car", "person")


def detection(label: str, left: float = 0, top: float = 0, side: float = 10, score: float = 0.9) -> Detection:
    return Detection(
        box=Box(left, top, left + side, top + side), label=label, class_id=LABELS.index(label), score=score
    )


OBJECT = st.builds(
    detection, st.sampled_from(LABELS), st.integers(0, 30), st.integers(0, 30), st.sampled_from([4, 10, 20])
)
PICTURE = st.lists(OBJECT, max_size=6)


def test_accuracy_is_the_share_of_correct_pictures_and_a_picture_without_detection_is_background() -> None:
    original = [[detection("car")], [detection("person")], [], [detection("car")]]
    optimised = [[detection("car")], [detection("car")], [], [detection("person")]]
    found = accuracy(original, optimised, ["car", "person", "background", "person"])
    assert (found.measure, found.original, found.optimised, found.loss) == ("accuracy", 0.75, 0.75, 0.0)
    assert accuracy(original, original, ["car"] * 4).loss == 0


def test_class_agreement_is_the_share_of_pictures_with_the_same_class() -> None:
    found = class_agreement([[detection("car")], []], [[detection("car")], [detection("car")]])
    assert (found.measure, found.optimised, found.loss, found.pictures) == ("agreement", 0.5, 0.5, 2)


@given(st.lists(PICTURE, min_size=1, max_size=4))
def test_a_detector_agrees_fully_with_itself(pictures: list[list[Detection]]) -> None:
    if any(pictures):
        assert object_agreement(pictures, pictures).loss == 0


@given(PICTURE, PICTURE)
def test_an_object_is_matched_at_most_once_when_two_models_are_compared(
    first: list[Detection], second: list[Detection]
) -> None:
    assert 0 <= matched(first, second) <= min(len(first), len(second))
    assert matched(first, first) == len(first)


@given(PICTURE, PICTURE)
def test_an_additional_object_of_one_model_lowers_the_agreement(
    first: list[Detection], more: list[Detection]
) -> None:
    far = [one.model_copy(update={"box": Box(500, 500, 510, 510)}) for one in more]
    if first:
        quality = object_agreement([first], [[*first, *far]])
        assert quality.loss == pytest.approx(1 - 2 * len(first) / (2 * len(first) + len(far)), abs=1e-4)


def test_objects_of_different_classes_or_places_do_not_match() -> None:
    assert matched([detection("car")], [detection("person")]) == 0
    assert matched([detection("car")], [detection("car", left=6)]) == 0
    assert matched([detection("car")], [detection("car", left=1)]) == 1


def test_a_comparison_is_refused_if_neither_model_finds_an_object_in_any_picture() -> None:
    with pytest.raises(OptimiseFailed, match="find no object in 2 pictures: expected pictures with objects"):
        object_agreement([[], []], [[], []])
