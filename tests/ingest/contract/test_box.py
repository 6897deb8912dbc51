"""Tests of the geometry of boxes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.contract.records import Box


def boxes() -> st.SearchStrategy[Box]:
    corners = st.tuples(*[st.floats(0, 500)] * 2, *[st.floats(1, 100)] * 2)
    return corners.map(lambda c: Box(c[0], c[1], c[0] + c[2], c[1] + c[3]))


@given(a=boxes(), b=boxes())
def test_iou_of_two_boxes_is_between_0_and_1_and_symmetric(a: Box, b: Box) -> None:
    assert 0.0 <= a.iou(b) <= 1.0 + 1e-9
    assert math.isclose(a.iou(b), b.iou(a), abs_tol=1e-12)
    assert a.iou(a) == pytest.approx(1.0)


@given(a=boxes(), b=boxes())
def test_the_overlap_of_two_boxes_is_at_least_their_iou_and_their_union_contains_both(a: Box, b: Box) -> None:
    assert a.overlap(b) >= a.iou(b)
    for box in (a, b):
        assert a.union(b).overlap(box) == pytest.approx(1.0)


def test_boxes_that_touch_or_have_no_area_do_not_overlap() -> None:
    box, beside, empty = Box(0.0, 0.0, 10.0, 10.0), Box(10.0, 0.0, 20.0, 10.0), Box(5.0, 5.0, 5.0, 5.0)
    for other in (beside, empty):
        assert (box.shared(other), box.iou(other), box.overlap(other)) == (0.0, 0.0, 0.0)


def test_a_box_is_scaled_widened_and_clipped() -> None:
    box = Box(10.0, 20.0, 30.0, 60.0)
    assert box.scaled(2.0, 0.5) == Box(20.0, 10.0, 60.0, 30.0)
    assert box.widened(0.5) == Box(0.0, 0.0, 40.0, 80.0)
    assert box.widened(1.0).clipped(45, 70) == Box(0.0, 0.0, 45.0, 70.0)
    assert box.clipped(10, 10).area == 0.0
