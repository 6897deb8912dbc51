"""Detectors of faces and plates: the ``Detector`` interface, and an implementation for ONNX models in OpenCV.

OpenCV's dnn module can run an ONNX file at any input size. The site file sets the input size: with a larger input, a
model finds smaller faces. OpenCV is about a third slower than ONNX Runtime, but the agent needs OpenCV anyway.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.exceptions import RedactionFailed
from edge_agent.redact.cover import Image
from edge_agent.redact.decoders import DECODERS
from edge_agent.redact.haar import HaarDetector
from edge_agent.redact.history import ScoredBox
from ingest.contract.records import Box
from ingest.site import DetectorConfig

Floats = npt.NDArray[np.float32]

_SAME_IOU = 0.3
"""Minimum intersection over union at which two boxes count as the same face or plate."""
_YOLOX_PAD = 114
"""Grey level of the padding around a letterboxed picture. YOLOX was trained with padding of this grey level."""
_HASH_DIGITS = 12
_SCORE_SLACK = 0.01
"""Maximum amount by which a score may lie outside 0..1 because of rounding. An output outside 0..1 by more than
``_SCORE_SLACK`` is not a score, and the configured decoder does not fit the model."""
_NEAR = 1.0
"""Maximum distance of a box's centre from the picture's edge, in widths or heights of the picture. If a box's centre
is farther than ``_NEAR`` from the picture's edge, the configured decoder does not fit the model."""
_GRID_PX = 32
"""Largest stride of YOLOX, in px. The width and height of a model's input are rounded up to multiples of 32 px."""


class Detector(Protocol):
    """Detector that finds faces or plates in pictures. Only one thread may call the methods of a detector."""

    name: str
    """Identity of the model as ``file@sha256:hash``, with the first twelve digits of the file's hash."""

    def find(self, image: Image, min_score: float) -> list[ScoredBox]:
        """Return the detected boxes in a picture ``(height, width, 3)`` uint8 BGR, in pixels of the picture.

        Raise RedactionFailed.
        """


def make_detector(config: DetectorConfig) -> Detector:
    """Load a detector and run it once on a black picture.

    Raise RedactionFailed if the detector cannot be loaded or run.
    """
    detector: Detector = HaarDetector(config) if config.decoder == "haar" else OnnxDetector(config)
    detector.find(np.zeros((config.height, config.width, 3), np.uint8), 1.0)
    return detector


class OnnxDetector:
    """Detector that runs an ONNX model in OpenCV's dnn module."""

    def __init__(self, config: DetectorConfig) -> None:
        self._config, self._path = config, Path(config.model)
        self._decode = DECODERS[config.decoder]
        try:
            data = self._path.read_bytes()
            self._net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
        except OSError as error:
            raise RedactionFailed(f"model {self._path} cannot be read: {error.strerror}") from None
        except cv2.error as error:
            raise RedactionFailed(f"model {self._path}: OpenCV cannot read the file: {error.err}") from None
        sides = [(config.width >> level, config.height >> level) for level in range(config.levels)]
        self._sizes = [(_on_grid(width), _on_grid(height)) for width, height in sides]
        self._outputs = self._net.getUnconnectedOutLayersNames()
        self.name = f"{self._path.name}@sha256:{hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]}"

    def find(self, image: Image, min_score: float) -> list[ScoredBox]:
        """Run the model on the whole picture at each input size, and merge boxes of the same object."""
        levels = [self._look(image, *size) for size in self._sizes]
        boxes = np.concatenate([boxes for boxes, _ in levels])
        best = np.concatenate([best for _, best in levels])
        sure = best >= min_score
        self._check(np.asarray(boxes[sure] / np.array([*image.shape[1::-1]] * 2), np.float32))
        return _merged(boxes[sure], best[sure])

    def _check(self, shares: Floats) -> None:
        """Raise RedactionFailed if a box lies far outside the picture or has its edges in the wrong order.

        If boxes were not checked, a wrong decoder would leave all faces visible, and nobody would notice.
        """
        low, high = shares[:, :2], shares[:, 2:]
        middle = (low + high) / 2
        if not ((low <= high) & (middle >= -_NEAR) & (middle <= 1 + _NEAR)).all():
            raise RedactionFailed(
                f"model {self.name} with decoder {self._config.decoder}: a box lies outside the picture:"
                " expected left, top, right and bottom as shares of the input. Check the model's decoder"
            )

    def _look(self, image: Image, width: int, height: int) -> tuple[Floats, Floats]:
        """Run the model.

        Return boxes ``(N, 4)`` in pixels of the picture, and the best class score of each box, ``(N,)``.
        """
        blob, scale = self._input(image, width, height)
        try:
            self._net.setInput(blob)
            arrays = [np.asarray(array, np.float32) for array in self._net.forward(self._outputs)]
            shares, scores = self._decode(dict(zip(self._outputs, arrays, strict=True)), width, height)
        except (cv2.error, ValueError) as error:
            problem = error.err if isinstance(error, cv2.error) else error
            raise RedactionFailed(
                f"model {self.name} with decoder {self._config.decoder} failed: {problem}"
            ) from None
        if not (np.isfinite(shares).all() and np.isfinite(scores).all()):
            raise RedactionFailed(f"model {self.name}: outputs are NaN or infinite, expected finite numbers")
        if scores.size and not -_SCORE_SLACK <= scores.min() <= scores.max() <= 1 + _SCORE_SLACK:
            raise RedactionFailed(
                f"model {self.name} with decoder {self._config.decoder}: scores from {scores.min():.3g} to "
                f"{scores.max():.3g}: expected 0 to 1. Check the model's decoder"
            )
        classes = self._config.classes or range(scores.shape[1])
        if max(classes) >= scores.shape[1]:
            raise RedactionFailed(
                f"model {self.name}: classes = {classes}: expected class numbers below {scores.shape[1]}"
            )
        return shares * scale, scores[:, list(classes)].max(axis=1)

    def _input(self, image: Image, width: int, height: int) -> tuple[Floats, Floats]:
        """Return the model's input, and the factors ``(4,)`` that convert shares of the input to pixels of the
        picture.
        """
        if self._config.decoder != "yolox":
            blob = cv2.dnn.blobFromImage(image, 1 / 128, (width, height), (127, 127, 127), swapRB=True)
            return np.asarray(blob, np.float32), np.array([*image.shape[1::-1]] * 2, np.float32)
        ratio = min(width / image.shape[1], height / image.shape[0])
        size = max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio))
        canvas = np.full((height, width, 3), _YOLOX_PAD, np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(image, size)
        blob = cv2.dnn.blobFromImage(canvas)
        return np.asarray(blob, np.float32), np.array([width, height] * 2, np.float32) / ratio


def _on_grid(side_px: int) -> int:
    return max(1, -(-side_px // _GRID_PX)) * _GRID_PX


def _merged(boxes: Floats, scores: Floats) -> list[ScoredBox]:
    """Merge all overlapping boxes of an object into one box that contains these boxes.

    Non-maximum suppression would keep only the box with the highest score, which may leave a part of the object
    visible.
    """
    found = []
    left = np.argsort(-scores)
    while left.size:
        same = _iou(boxes[left[0]], boxes[left]) >= _SAME_IOU
        same[0] = True  # true even for a box without area
        part = boxes[left[same]]
        around = Box(*map(float, (*part[:, :2].min(axis=0), *part[:, 2:].max(axis=0))))
        found.append(ScoredBox(around, float(scores[left[0]])))
        left = left[~same]
    return found


def _iou(box: Floats, boxes: Floats) -> Floats:
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    inside = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    union = areas + np.prod(np.maximum(box[2:] - box[:2], 0)) - inside
    return np.asarray(inside / np.maximum(union, 1e-6), np.float32)
