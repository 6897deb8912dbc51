"""Tests of redaction: privacy masks, obscured faces, box history, decoders of model outputs, and failures."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.exceptions import FrameUnusable, RedactionFailed
from edge_agent.redact.cover import MAX_BLOCKS, MIN_BLOCK_PX, Method, obscure
from edge_agent.redact.decoders import corners, ultraface, yolox
from edge_agent.redact.detector import make_detector
from edge_agent.redact.history import BoxHistory, ScoredBox
from edge_agent.redact.redactor import Redaction, Redactor
from ingest.contract.records import Box, Redacted
from ingest.site import DetectorConfig, RedactConfig
from tests.edge_agent.bright import write_bright, write_constant
from tests.paths import ROOT

Image = npt.NDArray[np.uint8]

ULTRAFACE = ROOT.parent / "shared" / "data" / "ultraface-rfb-320.onnx"
PROFILE = Box(690, 30, 723, 80)
"""Box of the face in frame 690 of one-by-one-person-detection.mp4, measured by hand."""
SECOND_NS = 1_000_000_000
SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
coordinate = st.floats(0.0, 1.0)


@pytest.fixture
def bright(tmp_path: Path) -> DetectorConfig:
    """Configure a detector that finds white squares of 32 px in a picture of 320×256."""
    return DetectorConfig(model=str(write_bright(tmp_path / "bright.onnx")), decoder="corners", height=256)


def noise(width: int = 320, height: int = 256, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def scene(left: int = 32, top: int = 64) -> Image:
    """Return a grey picture with a white square that contains a pattern."""
    image = np.full((256, 320, 3), 80, np.uint8)
    image[top : top + 32, left : left + 32] = 255
    image[top + 12 : top + 20 : 2, left + 4 : left + 28] = 200
    return image


# masks


@settings(deadline=None)
@given(st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=7), st.integers(8, 90), st.integers(8, 90))
def test_every_pixel_touched_by_a_privacy_mask_is_filled(
    points: list[tuple[float, float]], width: int, height: int
) -> None:
    redactor = Redactor(RedactConfig(masks=(tuple(points),), mask_colour=(1, 2, 3)))
    filled = (redactor.masked(np.full((height, width, 3), 200, np.uint8)) == (1, 2, 3)).all(axis=2)
    outline = (np.array(points) * (width, height)).astype(np.float32)
    for y, x in zip(*np.nonzero(~filled), strict=True):
        distance = cv2.pointPolygonTest(outline, (float(x) + 0.5, float(y) + 0.5), True)
        assert distance < 0, f"pixel {x}, {y} inside {points} is not covered"


@pytest.mark.parametrize(
    ("masks", "inside"),
    [
        ((SQUARE, SQUARE), (0.5, 0.5)),
        ((SQUARE, ((0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6))), (0.5, 0.5)),
        ((SQUARE + SQUARE,), (0.5, 0.5)),
        ((((0.5, 0.0), (0.8, 1.0), (0.0, 0.4), (1.0, 0.4), (0.2, 1.0)),), (0.5, 0.55)),
        ((((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)),), (0.001, 0.999)),
    ],
    ids=["twice", "one in another", "wound twice", "a star's middle", "all of it"],
)
def test_a_privacy_mask_whose_edges_cross_leaves_no_uncovered_hole(masks: tuple, inside: tuple[float, float]) -> None:  # type: ignore[type-arg]
    image = Redactor(RedactConfig(masks=masks)).masked(noise())
    assert image[int(inside[1] * 256), int(inside[0] * 320)].tolist() == [0, 0, 0]


def test_privacy_masks_scale_with_the_picture_size() -> None:
    redactor = Redactor(RedactConfig(masks=(SQUARE,)))
    for width, height in ((320, 256), (64, 48), (640, 360)):
        image = redactor.masked(np.full((height, width, 3), 200, np.uint8))
        assert (image[height // 4 : height * 3 // 4, width // 4 : width * 3 // 4] == 0).all()
        assert (image[: height // 4 - 3] == 200).all()


def test_the_redactor_copies_a_read_only_picture_and_refuses_a_picture_of_another_shape() -> None:
    redactor = Redactor(RedactConfig(masks=(SQUARE,)))
    image = noise()
    image.flags.writeable = False
    assert redactor.masked(image)[128, 160].tolist() == [0, 0, 0]
    assert redactor.masked(noise(640)[:, ::2])[128, 160].tolist() == [0, 0, 0]
    for strange in (np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)):
        with pytest.raises(FrameUnusable):
            redactor.masked(strange)  # type: ignore[arg-type]


def test_faces_in_the_area_of_a_privacy_mask_are_not_detected(bright: DetectorConfig) -> None:
    redactor = Redactor(RedactConfig(masks=(((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)),), faces=bright))
    summary = redactor.apply(scene()).redacted
    assert summary is not None
    assert (summary.masks, summary.faces) == (1, 0)


# remaining information


@pytest.mark.parametrize("method", ["pixelate", "fill"])
@settings(deadline=None)
@given(st.integers(3, 200), st.integers(3, 200), st.integers(0, 1000))
def test_the_number_of_colours_left_in_an_obscured_box_is_limited(
    method: Method, width: int, height: int, seed: int
) -> None:
    image = noise(width, height, seed)
    assert obscure(image, Box(0, 0, width, height), method)
    most = min(MAX_BLOCKS, max(1, width // MIN_BLOCK_PX)) * min(MAX_BLOCKS, max(1, height // MIN_BLOCK_PX))
    assert len(set(map(tuple, image.reshape(-1, 3).tolist()))) <= (1 if method == "fill" else most)


@pytest.mark.parametrize("method", ["pixelate", "blur", "fill"])
@settings(deadline=None)
@given(st.integers(MIN_BLOCK_PX, 20), st.integers(MIN_BLOCK_PX, 20), st.integers(0, 1000))
def test_an_obscured_box_keeps_only_the_mean_colour_of_each_block(
    method: Method, across: int, down: int, seed: int
) -> None:
    """Shuffling the pixels within each block does not change the result."""
    width, height = MAX_BLOCKS * across, MAX_BLOCKS * down
    one, rng = noise(width, height, seed), np.random.default_rng(seed)
    other = one.copy()
    for top, left in itertools.product(range(0, height, down), range(0, width, across)):
        block = other[top : top + down, left : left + across]
        block[:] = rng.permutation(block.reshape(-1, 3)).reshape(block.shape)
    assert (one != other).any()
    for image in (one, other):
        obscure(image, Box(0, 0, width, height), method)
    assert np.abs(one.astype(int) - other).max() <= 1


@pytest.mark.parametrize("box", [Box(-30, -30, 10, 10), Box(300, 240, 400, 400), Box(-1e9, -1e9, 1e9, 1e9)])
def test_an_obscured_box_across_the_border_is_clipped_to_the_picture(box: Box) -> None:
    image = noise()
    assert obscure(image, box, "fill")
    assert (image == 127).any()


def test_obscuring_a_box_outside_the_picture_changes_nothing() -> None:
    image = noise()
    assert not obscure(image, Box(400, 0, 500, 50), "fill")
    assert (image == noise()).all()


@pytest.mark.parametrize("method", ["pixelate", "blur", "fill"])
def test_a_detected_face_is_obscured_and_counted_in_the_record(bright: DetectorConfig, method: Method) -> None:
    done = Redactor(RedactConfig(faces=bright, plates=bright, method=method)).apply(scene())
    assert done.redacted is not None
    assert done.redacted.models[0].startswith("bright.onnx@sha256:")
    assert done.redacted == Redacted(faces=1, method=method, models=done.redacted.models, plates=done.redacted.plates)
    box = done.boxes[0]
    assert (box.left, box.top, box.right, box.bottom) == (24, 56, 72, 104)
    inside = done.image[64:96, 32:64].astype(int)
    assert np.abs(inside - scene()[64:96, 32:64]).mean() > 20
    assert (done.image[110:] == 80).all()


# memory


def found(left: float, score: float = 0.9) -> ScoredBox:
    return ScoredBox(Box(left, 0, left + 20, 20), score)


def test_a_face_missed_by_the_detector_stays_covered_for_a_while_by_a_widening_box() -> None:
    history = BoxHistory(0.5, hold_s=1.0, grow=0.0)
    assert [h.held for h in history.step([found(50)], 0)] == [False]
    (early,) = history.step([], SECOND_NS // 4)
    (later,) = history.step([], SECOND_NS // 2)
    assert early.held
    assert 20 < early.box.width < later.box.width
    assert history.step([], 2 * SECOND_NS) == []


def test_the_new_box_of_a_face_that_is_detected_again_replaces_the_box_kept_for_it() -> None:
    history = BoxHistory(0.5, hold_s=1.0, grow=0.0)
    history.step([found(50)], 0)
    history.step([], SECOND_NS // 4)
    (again,) = history.step([found(55)], SECOND_NS // 2)
    assert (again.box, again.held) == (Box(55, 0, 75, 20), False)


def test_a_face_detection_with_a_low_score_is_accepted_only_where_a_face_is_already_covered() -> None:
    history = BoxHistory(0.5, hold_s=1.0, grow=0.0)
    assert history.step([found(50, 0.3)], 0) == []
    history.step([found(50)], 1)
    assert [h.held for h in history.step([found(54, 0.3)], 2)] == [False]
    assert history.min_score == 0.25


def test_a_face_box_kept_without_a_detection_is_dropped_after_a_clock_jump() -> None:
    history = BoxHistory(0.5, hold_s=1.0, grow=0.0)
    history.step([found(50)], 100 * SECOND_NS)
    assert history.step([], SECOND_NS) == []


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 200), max_size=4), max_size=12))
def test_every_detected_face_is_covered_in_its_frame_and_in_the_next_frame(frames: list[list[int]]) -> None:
    history, before = BoxHistory(0.5, hold_s=1.0, grow=0.0), list[ScoredBox]()
    for number, lefts in enumerate(frames):
        now = [found(left) for left in lefts]
        boxes = history.step(now, number * SECOND_NS // 10)
        assert all(any(f.box.overlap(h.box) > 0.99 for h in boxes) for f in now)
        assert all(any(f.box.overlap(h.box) > 0 for h in boxes) for f in before)
        before = now


# decoders


def test_ultraface_decoder_expects_one_output_for_each_prior_box() -> None:
    for (width, height), count in {(320, 240): 4420, (640, 480): 17640, (320, 192): 3525}.items():
        outputs = {"scores": np.zeros((1, count, 2), np.float32), "boxes": np.zeros((1, count, 4), np.float32)}
        boxes, scores = ultraface(outputs, width, height)
        assert boxes.shape == (count, 4)
        assert scores.shape == (count, 1)
    with pytest.raises(ValueError, match="expected 4420"):
        ultraface(outputs, 320, 240)


def test_yolox_decoder_converts_a_grid_cell_to_a_box() -> None:
    raw = np.zeros((1, 8 * 8 + 4 * 4 + 2 * 2, 7), np.float32)
    raw[0, 8 * 8 + 4 * 1 + 2] = (0.5, 0.5, np.log(2), np.log(1), 0.9, 0.1, 0.8)
    boxes, scores = yolox({"output": raw}, 64, 64)
    best = int(scores[:, 1].argmax())
    assert np.allclose(boxes[best] * 64, (24, 16, 56, 32))
    assert np.allclose(scores[best], (0.09, 0.72))


@pytest.mark.parametrize("outputs", [{}, {"scores": np.zeros((1, 4, 1)), "boxes": np.zeros((1, 4, 4))}])
def test_redaction_model_outputs_of_an_unexpected_shape_are_refused(
    outputs: dict[str, npt.NDArray[np.float32]],
) -> None:
    for read in (corners, ultraface, yolox):
        with pytest.raises(ValueError, match=r"expected|scores|output"):
            read(outputs, 64, 64)


def test_overlapping_face_detections_become_one_box_around_both_faces(tmp_path: Path) -> None:
    """Two of the four boxes overlap, and the larger of these has the lower score."""
    cells = ((0.1, 0.1, 0.3, 0.3), (0.1, 0.1, 0.35, 0.35), (0.7, 0.7, 0.9, 0.9), (0.5, 0.5, 0.5, 0.5))
    model = write_constant(tmp_path / "model.onnx", cells, (0.9, 0.6, 0.8, 0.7))
    config = DetectorConfig(model=str(model), decoder="corners")
    found = make_detector(config).find(np.zeros((100, 100, 3), np.uint8), 0.5)
    assert [tuple(round(side) for side in f.box) for f in found] == [
        (10, 10, 35, 35),
        (70, 70, 90, 90),
        (50, 50, 50, 50),
    ]
    assert [round(f.score, 2) for f in found] == [0.9, 0.8, 0.7]


@pytest.mark.skipif(not ULTRAFACE.is_file(), reason="needs ../shared/data/ultraface-rfb-320.onnx")
@pytest.mark.parametrize("size", [(320, 192, 1), (320, 256, 1), (640, 384, 2)])
def test_haar_cascades_find_a_profile_face_in_real_footage_at_its_position(size: tuple[int, int, int]) -> None:
    clip = cv2.VideoCapture(str(ULTRAFACE.parent / "one-by-one-person-detection.mp4"))
    clip.set(cv2.CAP_PROP_POS_FRAMES, 690)
    image = np.asarray(clip.read()[1], np.uint8)
    config = DetectorConfig(model=str(ULTRAFACE), width=size[0], height=size[1], levels=size[2])
    best = max(make_detector(config).find(image, 0.5), key=lambda f: f.score)
    assert best.box.overlap(PROFILE) > 0.5


@pytest.mark.parametrize("model", ["", "haarcascade_frontalface_alt2.xml", "haarcascade_russian_plate_number.xml"])
def test_haar_cascades_shipped_with_opencv_load_and_find_nothing_in_a_grey_picture(model: str) -> None:
    detector = make_detector(DetectorConfig(decoder="haar", model=model))
    assert detector.find(np.full((256, 320, 3), 80, np.uint8), 0.5) == []
    assert "@sha256:" in detector.name


# failure


@pytest.mark.parametrize(
    ("decoder", "content", "why"),
    [
        ("ultraface", None, "No such file"),
        ("ultraface", b"no model at all", "cannot read the file"),
        ("haar", None, "no such file"),
        ("haar", b"<no cascade>", "expected a cascade"),
    ],
)
def test_a_redaction_model_that_fails_to_load_reports_the_reason(
    tmp_path: Path, decoder: str, content: bytes | None, why: str
) -> None:
    path = tmp_path / "model.file"
    if content is not None:
        path.write_bytes(content)
    faces = DetectorConfig(model=str(path), decoder=decoder)  # type: ignore[arg-type]
    with pytest.raises(RedactionFailed, match=why) as raised:
        Redactor(RedactConfig(faces=faces))
    assert str(path) in str(raised.value)


def test_a_redaction_model_with_a_wrong_decoder_or_input_size_fails_while_loading(bright: DetectorConfig) -> None:
    for wrong in ({"decoder": "yolox"}, {"decoder": "ultraface"}, {"width": 96}, {"classes": (1,)}):
        with pytest.raises(RedactionFailed, match=r"bright\.onnx"):
            Redactor(RedactConfig(faces=bright.model_copy(update=wrong)))


@pytest.mark.parametrize(
    ("box", "score", "why"),
    [
        ((32.0, 64.0, 64.0, 96.0), 0.9, "outside the picture"),  # pixels instead of shares
        ((0.6, 0.1, 0.4, 0.3), 0.9, "outside the picture"),  # offsets, or centre and size, instead of corners
        ((0.1, 0.1, 0.3, 0.3), 4.2, "scores from"),  # scores before the sigmoid
        ((0.1, 0.1, 0.3, 0.3), -4.2, "scores from"),
    ],
)
def test_impossible_boxes_or_scores_from_a_detector_raise_redaction_failed(
    tmp_path: Path, box: tuple[float, ...], score: float, why: str
) -> None:
    model = write_constant(tmp_path / "model.onnx", [box], [score])
    faces = DetectorConfig(model=str(model), decoder="corners")
    with pytest.raises(RedactionFailed, match=why):
        Redactor(RedactConfig(faces=faces)).apply(noise())


def test_only_the_redactor_can_create_a_redacted_picture() -> None:
    with pytest.raises(RedactionFailed):
        Redaction(noise(), None, (), object())
