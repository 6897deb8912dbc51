"""Contract tests of all decoders."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion, OutputDecoder
from engines.exceptions import InferenceFailed
from ingest.contract.records import Box, Fit, Inner, Region

LABELS = ("background", "cat", "dog")
SIZE = 32
OPTIONS = DecoderOptions(LABELS, SIZE, SIZE, min_score=0.3)
ROWS = [
    FrameRegion(Region(Box(0, 0, 100, 80), Fit(0.32, 0.4, 0.0, 0.0), Inner(0, 0, 32, 32)), 100, 80),
    FrameRegion(Region(Box(-10, 60, 40, 95), Fit(1.0, 1.0, 10.0, -60.0), Inner(0, 0, 32, 32)), 100, 80),
]
SHAPES = {"sigmoid": (len(LABELS),), "softmax": (len(LABELS),), "yolox": (4 * 4 + 2 * 2 + 1, 5 + len(LABELS))}
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)


def test_the_contract_covers_every_built_in_decoder() -> None:
    assert set(SHAPES) == set(decoders.known())


each_decoder = pytest.mark.parametrize("name", sorted(SHAPES))


@each_decoder
@given(data=st.data())
def test_detections_of_any_finite_outputs_are_in_the_frame_labelled_and_sorted(
    name: str, data: st.DataObject
) -> None:
    decoder = decoders.make(name, OPTIONS)
    outputs = data.draw(nps.arrays(np.float32, (len(ROWS), *SHAPES[name]), elements=FLOATS))
    before = outputs.copy()
    found = decoder.decode({"output": outputs}, ROWS)
    assert np.array_equal(outputs, before)
    assert len(found) == len(ROWS)
    for row, detections in zip(ROWS, found, strict=True):
        scores = [d.score for d in detections]
        assert scores == sorted(scores, reverse=True)
        for d in detections:
            assert OPTIONS.min_score <= d.score <= 1.0
            assert d.label == LABELS[d.class_id]
            assert 0 <= d.box.left < d.box.right <= row.frame_width
            assert 0 <= d.box.top < d.box.bottom <= row.frame_height


@each_decoder
def test_rows_are_decoded_independently(name: str) -> None:
    decoder = decoders.make(name, OPTIONS)
    outputs = np.random.default_rng(3).uniform(0, 1, (len(ROWS), *SHAPES[name])).astype(np.float32)
    together = decoder.decode({"output": outputs}, ROWS)
    alone = [decoder.decode({"output": outputs[i : i + 1]}, ROWS[i : i + 1])[0] for i in range(len(ROWS))]
    assert together == alone


@each_decoder
def test_an_empty_batch_gives_no_detections(name: str) -> None:
    decoder = decoders.make(name, OPTIONS)
    assert decoder.decode({"output": np.zeros((0, *SHAPES[name]), np.float32)}, []) == []


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@each_decoder
def test_nan_and_infinity_are_refused(name: str, broken: float) -> None:
    decoder: OutputDecoder = decoders.make(name, OPTIONS)
    outputs = np.zeros((len(ROWS), *SHAPES[name]), np.float32)
    outputs[(1, *(0 for _ in SHAPES[name]))] = broken
    with pytest.raises(InferenceFailed, match="finite"):
        decoder.decode({"output": outputs}, ROWS)


@pytest.mark.parametrize("shape", [(2,), (1, 3), (2, 99), (2, 21, 8, 1), (3, 21, 8)])
@each_decoder
def test_outputs_of_another_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InferenceFailed, match="expected"):
        decoders.make(name, OPTIONS).decode({"output": np.zeros(shape, np.float32)}, ROWS)


@each_decoder
def test_a_model_without_outputs_is_refused(name: str) -> None:
    with pytest.raises(InferenceFailed, match="no output"):
        decoders.make(name, OPTIONS).decode({}, ROWS)
