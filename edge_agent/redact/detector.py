"""What finds faces and plates: the seam, and its two implementations, both by OpenCV alone.

OpenCV's dnn module reads an ONNX file with any input size, so that small faces are a matter of a setting; it is
slower than ONNX Runtime by about a third, and is there already.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.exceptions import RedactionFailed
from edge_agent.redact.decoders import DECODERS
from edge_agent.redact.haar import HaarDetector
from edge_agent.redact.hold import Found
from ingest.records import Box
from ingest.site import DetectorConfig

__all__ = ["Detector", "OnnxDetector", "make_detector"]

Image = npt.NDArray[np.uint8]

_SAME_IOU = 0.3
"""Two boxes that overlap more than this are one face."""
_YOLOX_PAD = 114
"""Grey level around a letterboxed picture, as YOLOX is trained."""
_HASH_DIGITS = 12


class Detector(Protocol):
    """Finds boxes in one picture after the other. Its methods belong to one thread."""

    name: str
    """``file@sha256:hash``, the hash's first twelve digits."""

    def find(self, image: Image, least_score: float) -> list[Found]:
        """Return what is in a picture ``(height, width, 3)`` uint8 BGR, in its pixels. Raise RedactionFailed."""
        ...


def make_detector(config: DetectorConfig, folder: Path) -> Detector:
    """Load a detector and try it; a relative path is below ``folder``. Raise RedactionFailed, which says why."""
    detector: Detector = HaarDetector(config, folder) if config.decoder == "haar" else OnnxDetector(config, folder)
    detector.find(np.zeros((config.height, config.width, 3), np.uint8), 1.0)
    return detector


class OnnxDetector:
    """An ONNX file in OpenCV's dnn module."""

    def __init__(self, config: DetectorConfig, folder: Path) -> None:
        self._config, self._path = config, folder / config.model
        self._decode = DECODERS[config.decoder]
        try:
            data = self._path.read_bytes()
            self._net = cv2.dnn.readNetFromONNX(np.frombuffer(data, np.uint8))
        except OSError as error:
            raise RedactionFailed(f"model {self._path}: {error.strerror}") from None
        except cv2.error as error:
            raise RedactionFailed(f"model {self._path}: OpenCV cannot read it: {error.err}") from None
        self._outputs = self._net.getUnconnectedOutLayersNames()
        self.name = f"{self._path.name}@sha256:{hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]}"

    def find(self, image: Image, least_score: float) -> list[Found]:
        """Run the model on the whole picture."""
        config = self._config
        blob, scale = self._input(image)
        try:
            self._net.setInput(blob)
            arrays = [np.asarray(array, np.float32) for array in self._net.forward(self._outputs)]
            outputs = dict(zip(self._outputs, arrays, strict=True))
            shares, scores = self._decode(outputs, config.width, config.height)
        except (cv2.error, ValueError) as error:
            told = error.err if isinstance(error, cv2.error) else error
            raise RedactionFailed(f"model {self.name} as {config.decoder}: {told}") from None
        if not (np.isfinite(shares).all() and np.isfinite(scores).all()):
            raise RedactionFailed(f"model {self.name} gives numbers that are none")
        best = (scores[:, [c for c in config.classes if c < scores.shape[1]]] if config.classes else scores).max(
            axis=1
        )
        sure = best >= least_score
        return _distinct(shares[sure] * scale, best[sure], least_score)

    def _input(self, image: Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Return the model's input, and what the input's sides are in pixels of the picture, four times."""
        width, height = self._config.width, self._config.height
        if self._config.decoder != "yolox":
            blob = cv2.dnn.blobFromImage(image, 1 / 128, (width, height), (127, 127, 127), swapRB=True)
            return np.asarray(blob, np.float32), np.array([*image.shape[1::-1]] * 2, np.float32)
        ratio = min(width / image.shape[1], height / image.shape[0])
        size = max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio))
        canvas = np.full((height, width, 3), _YOLOX_PAD, np.uint8)
        canvas[: size[1], : size[0]] = cv2.resize(image, size)
        return np.asarray(cv2.dnn.blobFromImage(canvas), np.float32), np.array(
            [width, height] * 2, np.float32
        ) / ratio


def _distinct(boxes: npt.NDArray[np.float32], scores: npt.NDArray[np.float32], least: float) -> list[Found]:
    """Leave out what is found twice."""
    if not len(boxes):
        return []
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(sides.tolist(), scores.tolist(), max(0.0, least - 1e-6), _SAME_IOU)
    return [Found(Box(*map(float, boxes[i])), float(scores[i])) for i in np.ravel(kept)]
