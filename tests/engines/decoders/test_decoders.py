"""Tests of the built-in decoders, which turn arrays into labelled boxes in the frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion
from engines.exceptions import DecoderUnknown, InferenceFailed
from ingest.contract.records import Box, Fit, Inner, Region

LABELS = ("background", "cat", "dog")


SQUARE = Box(10, 20, 50, 60)
INNER = Inner(0, 0, 1, 1)
"""An arbitrary rectangle: decoders read only the box and the fit of a region."""
IDENTITY = Fit(1.0, 1.0, 0.0, 0.0)


def row(box: Box = SQUARE, fit: Fit = IDENTITY) -> FrameRegion:
    return FrameRegion(Region(box, fit, INNER), 100, 80)


class TestSoftmax:
    decoder = decoders.make("softmax", DecoderOptions(LABELS, 64, 64, min_score=0.5))

    def test_softmax_decoder_returns_the_most_likely_class_of_each_region(self) -> None:
        found = self.decoder.decode({"p": np.array([[0.1, 0.2, 0.7], [0.1, 0.8, 0.1]], np.float32)}, [row(), row()])
        assert [[d.label for d in one] for one in found] == [["dog"], ["cat"]]
        assert found[0][0].box == Box(10, 20, 50, 60)
        assert found[0][0].score == pytest.approx(0.7)

    def test_softmax_decoder_drops_the_background_and_low_scores(self) -> None:
        outputs = {"p": np.array([[0.9, 0.05, 0.05], [0.3, 0.3, 0.4]], np.float32)}
        assert self.decoder.decode(outputs, [row(), row()]) == [[], []]

    def test_softmax_decoder_converts_logits_to_probabilities(self) -> None:
        ((found,),) = self.decoder.decode({"p": np.array([[0.0, 1.0, 4.0]], np.float32)}, [row()])
        assert found.score == pytest.approx(np.exp(4) / (1 + np.e + np.exp(4)), rel=1e-5)

    def test_detected_boxes_are_clipped_to_the_frame(self) -> None:
        outputs = {"p": np.array([[0, 1, 0]], np.float32)}
        ((found,),) = self.decoder.decode(outputs, [row(Box(-5, 70, 30, 95))])
        assert found.box == Box(0, 70, 30, 80)

    def test_a_model_output_with_another_number_of_classes_than_labels_is_refused(self) -> None:
        with pytest.raises(InferenceFailed, match="labels"):
            self.decoder.decode({"p": np.zeros((1, 5), np.float32)}, [row()])


class TestSigmoid:
    decoder = decoders.make("sigmoid", DecoderOptions(LABELS, 64, 64, min_score=0.3))

    def test_sigmoid_decoder_returns_every_likely_label_with_its_unchanged_score(self) -> None:
        (found,) = self.decoder.decode({"p": np.array([[0.9, 0.4, 0.8]], np.float32)}, [row()])
        assert [(d.label, pytest.approx(d.score)) for d in found] == [("dog", 0.8), ("cat", 0.4)]

    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    def test_the_sigmoid_decoder_accepts_a_vector_of_scores_for_a_single_label(self, shape: tuple[int, ...]) -> None:
        one = decoders.make("sigmoid", DecoderOptions(("defect",), 64, 64, min_score=0.3))
        found = one.decode({"p": np.array([0.1, 0.7], np.float32).reshape(shape)}, [row(), row()])
        assert [[d.label for d in each] for each in found] == [[], ["defect"]]


class TestBinary:
    decoder = decoders.make("binary", DecoderOptions(("cat", "dog"), 64, 64, min_score=0.3))

    @pytest.mark.parametrize("shape", [(2,), (2, 1)])
    def test_the_binary_decoder_serves_one_sigmoid_unit_as_two_labels(self, shape: tuple[int, ...]) -> None:
        found = self.decoder.decode({"p": np.array([0.1, 0.7], np.float32).reshape(shape)}, [row(), row()])
        assert [[(d.label, d.class_id, pytest.approx(d.score)) for d in each] for each in found] == [
            [("cat", 0, 0.9)],
            [("dog", 1, 0.7)],
        ]

    def test_the_binary_decoder_refuses_a_model_with_another_number_of_labels_than_two(self) -> None:
        three = decoders.make("binary", DecoderOptions(LABELS, 64, 64))
        with pytest.raises(InferenceFailed, match="background, cat, dog: expected 2 labels for the decoder binary"):
            three.decode({"p": np.zeros((1, 1), np.float32)}, [row()])


def test_every_decoder_accepts_scores_outside_0_to_1_by_a_rounding_error() -> None:
    rounded = {"p": np.array([[-5e-4, 1.0 + 5e-4, 0.2]], np.float32)}
    for name in ("softmax", "sigmoid"):
        reason = decoders.refusal(decoders.make(name, DecoderOptions(LABELS, 64, 64)), rounded, [row()])
        assert ("sum to 1.2" in reason) == (name == "softmax")


SIZE = 64
CELLS = (SIZE // 8) ** 2 + (SIZE // 16) ** 2 + (SIZE // 32) ** 2


def cell_of(x: float, y: float, width: float, height: float) -> tuple[int, np.ndarray]:
    """Return the index and the four box values of the stride-8 cell that encodes a box."""
    column, line = int(x // 8), int(y // 8)
    values = np.array([x / 8 - column, y / 8 - line, np.log(width / 8), np.log(height / 8)], np.float32)
    return line * (SIZE // 8) + column, values


class TestYolox:
    decoder = decoders.make("yolox", DecoderOptions(LABELS, SIZE, SIZE, min_score=0.3))

    def outputs(self, *things: tuple[float, float, float, float, int, float]) -> dict[str, np.ndarray]:
        raw = np.zeros((1, CELLS, 5 + len(LABELS)), np.float32)
        for x, y, width, height, label, score in things:
            index, values = cell_of(x, y, width, height)
            raw[0, index, :4] = values
            raw[0, index, 4], raw[0, index, 5 + label] = score, 1.0
        return {"output": raw}

    @given(
        x=st.floats(12, 52),
        y=st.floats(12, 52),
        width=st.floats(4, 20),
        height=st.floats(4, 20),
        label=st.integers(0, 2),
    )
    def test_a_decoded_box_is_mapped_back_to_its_place_in_the_frame(
        self, x: float, y: float, width: float, height: float, label: int
    ) -> None:
        fit = Fit(0.64, 0.8, 0.0, 0.0)
        ((found,),) = self.decoder.decode(self.outputs((x, y, width, height, label, 0.9)), [row(fit=fit)])
        expected = fit.to_frame(Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        np.testing.assert_allclose(found.box, expected, atol=1e-2)
        assert found.label == LABELS[label]

    def test_overlapping_boxes_are_merged_only_within_a_class(self) -> None:
        near = (30.0, 30.0, 20.0, 20.0, 1, 0.9), (33.0, 25.0, 20.0, 20.0, 1, 0.6)
        assert len(self.decoder.decode(self.outputs(*near), [row()])[0]) == 1
        two_classes = near[0], (*near[1][:4], 2, 0.6)
        assert len(self.decoder.decode(self.outputs(*two_classes), [row()])[0]) == 2
        apart = (10.0, 10.0, 8.0, 8.0, 1, 0.9), (50.0, 50.0, 8.0, 8.0, 1, 0.8)
        assert len(self.decoder.decode(self.outputs(*apart), [row()])[0]) == 2

    def test_yolox_decoder_drops_low_scores_and_refuses_outputs_of_another_input_size(self) -> None:
        assert self.decoder.decode(self.outputs((30, 30, 20, 20, 1, 0.2)), [row()]) == [[]]
        with pytest.raises(InferenceFailed, match="input size"):
            self.decoder.decode({"output": np.zeros((1, 7, 8), np.float32)}, [row()])


class TestYoloxGrid:
    """Tests of grid cells of every stride, on a padded input that is not square."""

    WIDTH, HEIGHT = 96, 64
    decoder = decoders.make("yolox", DecoderOptions(LABELS, WIDTH, HEIGHT))
    cells = 12 * 8 + 6 * 4 + 3 * 2

    def outputs(self, *things: tuple[int, int, int, float, float, float]) -> dict[str, np.ndarray]:
        raw = np.zeros((1, self.cells, 5 + len(LABELS)), np.float32)
        for stride, column, line, width, height, score in things:
            before = sum((self.WIDTH // s) * (self.HEIGHT // s) for s in (8, 16, 32) if s < stride)
            index = before + line * (self.WIDTH // stride) + column
            raw[0, index, :4] = 0.5, 0.25, np.log(width / stride), np.log(height / stride)
            raw[0, index, 4:6] = score, 1.0
        return {"output": raw}

    @given(data=st.data(), stride=st.sampled_from([8, 16, 32]))
    def test_a_yolox_box_is_relative_to_the_position_of_its_grid_cell(self, data: st.DataObject, stride: int) -> None:
        column = data.draw(st.integers(0, self.WIDTH // stride - 1))
        line = data.draw(st.integers(0, self.HEIGHT // stride - 1))
        fit = Fit(0.5, 0.5, 2.0, 1.0)
        wide = FrameRegion(Region(Box(0, 0, 184, 124), fit, INNER), 184, 124)
        ((found,),) = self.decoder.decode(self.outputs((stride, column, line, 6.0, 4.0, 0.9)), [wide])
        x, y = (column + 0.5) * stride, (line + 0.25) * stride
        whole = Box(*((v - o) / 0.5 for v, o in zip((x - 3, y - 2, x + 3, y + 2), (2, 1, 2, 1), strict=True)))
        expected = Box(max(0, whole.left), max(0, whole.top), min(184, whole.right), min(124, whole.bottom))
        np.testing.assert_allclose(found.box, expected, atol=1e-2)

    def test_forty_objects_reported_by_nine_grid_cells_each_become_forty_detections(self) -> None:
        big = decoders.make("yolox", DecoderOptions(LABELS, 640, 640))
        raw = np.zeros((1, 8400, 5 + len(LABELS)), np.float32)
        for number in range(40):
            centre_x, centre_y = 5 + (number % 8) * 9, 5 + (number // 8) * 9
            for dx in (-1, 0, 1):
                for dy in (-1, 0, 1):
                    index = (centre_y + dy) * 80 + centre_x + dx
                    raw[0, index, :4] = 0.5 - dx, 0.5 - dy, np.log(4.0), np.log(4.0)
                    raw[0, index, 4:6] = 0.9 - number * 0.01 - 0.001 * (dx * dx + dy * dy), 1.0
        large = FrameRegion(Region(Box(0, 0, 640, 640), IDENTITY, INNER), 640, 640)
        assert len(big.decode({"output": raw}, [large])[0]) == 40


def test_softmax_results_do_not_depend_on_other_rows_of_the_batch() -> None:
    decoder = decoders.make("softmax", DecoderOptions(("background", "car", "bus"), 64, 64, min_score=0.5))
    rounded, exact = [0.05, 0.93, 0.035], [0.05, 0.9, 0.05]
    alone = decoder.decode({"p": np.array([exact], np.float32)}, [row()])
    batch = decoder.decode({"p": np.array([exact, rounded, [1.0, 4.0, -2.0]], np.float32)}, [row()] * 3)
    assert batch[0] == alone[0]
    assert [found[0].label for found in batch] == ["car", "car", "car"]
    assert batch[2][0].score == pytest.approx(np.exp(4) / (np.exp(1) + np.exp(4) + np.exp(-2)), abs=1e-4)


def test_the_error_for_an_unknown_decoder_lists_the_known_decoders() -> None:
    with pytest.raises(DecoderUnknown, match=r"corners, embedding, end2end, .*, yolov5, yolov8, yolox"):
        decoders.make("nonsense", DecoderOptions(LABELS, 64, 64))


def test_yolox_detects_a_person_in_at_least_30_percent_of_the_sampled_video_frames(
    shared_data: object, tmp_path: object
) -> None:
    from pathlib import Path

    from engines import backends
    from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
    from engines.repository.store import Repository

    data = Path(str(shared_data))
    options = AdoptOptions("yolox-nano", "yolox", COCO_LABELS)
    model = adopt(data / "yolox-nano.onnx", Repository(Path(str(tmp_path))), options)
    engine = backends.make("onnxruntime")
    engine.load(model)
    decoder = decoders.make("yolox", DecoderOptions(model.manifest.labels, 416, 416))
    video = cv2.VideoCapture(str(data / "one-by-one-person-detection.mp4"))
    scale, seen, looked = 416 / 768, 0, 0
    for index in range(300):
        found, image = video.read()
        if not found or index % 10:
            continue
        canvas = np.full((416, 416, 3), 114, np.uint8)
        canvas[91:325] = cv2.resize(image, (416, 234))
        row = FrameRegion(Region(Box(0, 0, 768, 432), Fit(scale, scale, 0.0, 91.0), INNER), 768, 432)
        detections = decoder.decode(engine.infer(canvas[None]), [row])[0]
        looked += 1
        seen += any(d.label == "person" for d in detections)
    video.release()
    assert seen >= looked * 0.3
