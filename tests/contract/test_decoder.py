"""Contract tests of all decoders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion, OutputDecoder
from engines.exceptions import InferenceFailed, ManifestError
from ingest.contract.records import Box, Fit, Inner, Region

LABELS = ("background", "cat", "dog")
SIZE = 32
OPTIONS = DecoderOptions(LABELS, SIZE, SIZE, min_score=0.3)
ROWS = [
    FrameRegion(Region(Box(0, 0, 100, 80), Fit(0.32, 0.4, 0.0, 0.0), Inner(0, 0, 32, 32)), 100, 80),
    FrameRegion(Region(Box(-10, 60, 40, 95), Fit(1.0, 1.0, 10.0, -60.0), Inner(0, 0, 32, 32)), 100, 80),
]
CLASSES = len(LABELS)


def options(name: str) -> DecoderOptions:
    """Return the options of a decoder. The decoder ``binary`` has exactly two labels."""
    return replace(OPTIONS, labels=LABELS[:2]) if name == "binary" else OPTIONS


SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "binary": {"output": (1,)},
    "corners": {"scores": (9, CLASSES), "boxes": (9, 4)},
    "embedding": {"output": (12,)},
    "end2end": {"rows": (9, 6)},
    "rtdetr": {"boxes": (9, 4), "logits": (9, CLASSES)},
    "sigmoid": {"output": (CLASSES,)},
    "softmax": {"output": (CLASSES,)},
    "ssd": {"scores": (9, CLASSES), "boxes": (9, 4)},
    "yolov5": {"output": (9, 5 + CLASSES)},
    "yolov8": {"output": (4 + CLASSES, 9)},
    "yolox": {"output": (4 * 4 + 2 * 2 + 1, 5 + CLASSES)},
}
"""Shapes of the outputs of each decoder per image."""
FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6)


def test_the_decoder_contract_tests_cover_every_built_in_decoder() -> None:
    assert set(SHAPES) == set(decoders.known())


each_decoder = pytest.mark.parametrize("name", sorted(SHAPES))


def filled(name: str, rows: int = len(ROWS)) -> dict[str, np.ndarray]:
    return {output: np.zeros((rows, *shape), np.float32) for output, shape in SHAPES[name].items()}


@each_decoder
@given(data=st.data())
def test_detections_from_any_finite_outputs_are_inside_the_frame_labelled_and_sorted(
    name: str, data: st.DataObject
) -> None:
    decoder = decoders.make(name, options(name))
    outputs = {
        output: data.draw(nps.arrays(np.float32, (len(ROWS), *shape), elements=FLOATS))
        for output, shape in SHAPES[name].items()
    }
    before = {output: values.copy() for output, values in outputs.items()}
    found = decoder.decode(outputs, ROWS)
    assert all(np.array_equal(outputs[output], values) for output, values in before.items())
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
def test_rows_of_a_batch_are_decoded_independently(name: str) -> None:
    decoder = decoders.make(name, options(name))
    random = np.random.default_rng(3)
    outputs = {n: random.uniform(0, 1, values.shape).astype(np.float32) for n, values in filled(name).items()}
    together = decoder.decode(outputs, ROWS)
    parts = [{n: values[i : i + 1] for n, values in outputs.items()} for i in range(len(ROWS))]
    alone = [decoder.decode(part, ROWS[i : i + 1])[0] for i, part in enumerate(parts)]
    assert together == alone


@each_decoder
def test_a_decoder_returns_no_detections_for_an_empty_batch(name: str) -> None:
    decoder = decoders.make(name, options(name))
    assert decoder.decode(filled(name, 0), []) == []


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@each_decoder
def test_nan_and_infinity_in_model_outputs_are_refused(name: str, broken: float) -> None:
    decoder: OutputDecoder = decoders.make(name, options(name))
    for output in SHAPES[name]:
        outputs = filled(name)
        outputs[output][1].flat[0] = broken
        with pytest.raises(InferenceFailed, match="finite"):
            decoder.decode(outputs, ROWS)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (2, 999), (2, 21, 8, 1), (3, 21, 8)])
@each_decoder
def test_model_outputs_of_an_unexpected_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InferenceFailed, match="expected"):
        decoders.make(name, options(name)).decode({"output": np.zeros(shape, np.float32)}, ROWS)


@each_decoder
def test_a_model_without_outputs_is_refused(name: str) -> None:
    with pytest.raises(InferenceFailed, match="no output"):
        decoders.make(name, options(name)).decode({}, ROWS)


@each_decoder
def test_an_unknown_decoder_setting_is_refused(name: str) -> None:
    with pytest.raises(ManifestError, match=f"decoder {name}, setting colour = 'red'.*Settings of this decoder: "):
        decoders.make(name, replace(options(name), settings={"colour": "red"}))
