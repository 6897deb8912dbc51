"""Tests of the detections of overlapping tiles, reduced to one detection per object."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.decoders import DecoderOptions, FrameRegion
from engines.decoders.boxes import one_per_object
from ingest.contract.records import Box, Detection, Fit, Inner, Region

WIDTH, HEIGHT = 700, 400
OPTIONS = DecoderOptions(("car", "person"), 400, 400)
LEFT, RIGHT = Box(0, 0, 400, 400), Box(300, 0, 700, 400)
WHOLE = Box(0, 0, WIDTH, HEIGHT)


def row(box: Box) -> FrameRegion:
    return FrameRegion(Region(box, Fit(1, 1, -box.left, -box.top), Inner(0, 0, 400, 400)), WIDTH, HEIGHT)


def seen(box: Box, score: float = 0.8, class_id: int = 0) -> Detection:
    return Detection(box=box, label=OPTIONS.labels[class_id], class_id=class_id, score=score)


def merged(*found: Sequence[Detection]) -> list[Detection]:
    return one_per_object([row(LEFT), row(RIGHT), row(WHOLE)][: len(found)], found, OPTIONS)


def test_an_object_in_the_overlap_of_two_tiles_is_one_detection_with_the_higher_score() -> None:
    best = seen(Box(320, 100, 380, 150), 0.9)
    assert merged([best], [seen(Box(321, 101, 380, 150), 0.7)]) == [best]


def test_a_box_cut_off_by_a_tile_edge_is_replaced_by_the_whole_box_of_the_neighbouring_tile() -> None:
    cut, whole = seen(Box(350, 100, 399, 150), 0.95), seen(Box(350, 100, 450, 150), 0.6)
    assert merged([cut], [whole]) == [whole]


def test_a_box_at_the_edge_of_the_frame_does_not_count_as_cut_off_by_its_tile() -> None:
    at_the_edge, around = seen(Box(0, 100, 40, 150), 0.9), seen(Box(0, 60, 90, 200), 0.5)
    assert merged([at_the_edge, around], []) == [at_the_edge, around]


def test_a_box_cut_off_by_a_tile_edge_is_kept_if_no_other_tile_has_the_whole_box() -> None:
    alone = seen(Box(350, 100, 399, 150))
    assert merged([alone], []) == [alone]


def test_an_object_larger_than_a_tile_is_one_detection_from_the_whole_frame() -> None:
    lorry = seen(Box(100, 100, 600, 300), 0.5)
    parts = seen(Box(100, 100, 400, 300), 0.9), seen(Box(300, 100, 600, 300), 0.9)
    assert merged([parts[0]], [parts[1]], [lorry]) == [lorry]


@pytest.mark.parametrize("class_id", [0, 1])
def test_objects_of_two_classes_at_one_place_are_kept(class_id: int) -> None:
    box = Box(320, 100, 380, 150)
    found = merged([seen(box, 0.9)], [seen(box, 0.8, class_id)])
    assert len(found) == 1 + class_id


centres = st.tuples(st.integers(0, 17), st.integers(0, 9))


@given(st.sets(centres, max_size=12))
def test_each_small_object_of_a_frame_is_one_detection_at_its_place(places: set[tuple[int, int]]) -> None:
    """Objects of 20×20 px stand 20 px apart or more; each tile reports the objects, or their parts, inside it."""
    objects = [Box(40 * x, 40 * y, 40 * x + 20, 40 * y + 20) for x, y in places]
    found = []
    for region in (LEFT, RIGHT):
        shown = [box for box in objects if box.shared(region) > 0.0]
        parts = [Box(max(b.left, region.left), b.top, min(b.right, region.right), b.bottom) for b in shown]
        found.append([seen(box) for box in parts])
    assert sorted(one.box for one in merged(*found)) == sorted(objects)
