"""Tests of the tiles of large pictures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ingest.contract.records import Box
from ingest.site import PipelineConfig
from stream.prepare.regions import tiles, windows

sides = st.integers(1, 5000)
inputs = st.integers(8, 1280)


def tiled(**values: object) -> PipelineConfig:
    defaults = {"name": "p", "model": "m", "width": 416, "height": 416, "fit": "letterbox", "regions": "tiles"}
    return PipelineConfig(**{**defaults, **values})


@given(
    sides, sides, inputs, inputs, st.floats(0.0, 0.5), st.integers(3, 64), st.sampled_from(["letterbox", "stretch"])
)
def test_tiles_cover_the_frame_and_overlap_as_configured_within_their_maximum_number(
    wide: int, high: int, width: int, height: int, overlap: float, most: int, fit: str
) -> None:
    pipeline = tiled(width=width, height=height, tile_overlap=overlap, max_regions=most, fit=fit)
    whole, *parts = windows(pipeline, (wide, high), None, most)
    assert whole.region.box == Box(0, 0, wide, high)
    assert len(parts) <= most - 1
    if not parts:
        return
    assert len(parts) > 1
    columns = sorted({(part.left, part.right) for part in parts})
    rows = sorted({(part.top, part.bottom) for part in parts})
    assert len(columns) * len(rows) == len(parts)
    for spans, side in ((columns, wide), (rows, high)):
        assert (spans[0][0], spans[-1][1]) == (0, side)
        for (left, right), (following, _) in itertools.pairwise(spans):
            assert right - following >= math.floor((right - left) * overlap) - 1
            assert right >= following
    assert len({(part.right - part.left, part.bottom - part.top) for part in parts}) == 1


@given(sides, sides, st.integers(3, 32))
def test_a_higher_maximum_number_of_tiles_never_makes_tiles_larger(wide: int, high: int, most: int) -> None:
    fewer, more = (tiles(tiled(), (wide, high), count) for count in (most - 1, most))
    if fewer:
        assert more
        assert more[0].area <= fewer[0].area


def test_a_frame_that_fits_into_the_models_input_has_no_tiles() -> None:
    (window,) = windows(tiled(), (400, 300), None, 8)
    assert window.region.box == Box(0, 0, 400, 300)


def test_tiles_have_the_size_of_the_model_input_if_the_maximum_number_of_tiles_allows() -> None:
    parts = tiles(tiled(), (1920, 1080), 63)
    assert len(parts) == 18
    assert {(part.width, part.height) for part in parts} == {(416, 416)}


def test_a_low_maximum_number_of_tiles_makes_tiles_larger_than_the_model_input() -> None:
    parts = tiles(tiled(), (3840, 2160), 7)
    assert len(parts) == 6
    assert np.allclose([parts[0].width, parts[0].height], 3840 / 2.6, atol=1.0)


@pytest.mark.parametrize(
    ("values", "expected"), [({"fit": "crop"}, "a crop loses"), ({"max_regions": 2}, "at least 3")]
)
def test_tile_settings_that_would_lose_objects_are_refused(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        tiled(**values)
