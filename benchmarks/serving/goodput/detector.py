"""The model that LitServe and Ray Serve run: an ONNX Runtime session and a decoder, as in the engine node.

The environments of LitServe and Ray Serve have the same versions of ONNX Runtime, NumPy and OpenCV as
requirements.lock.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.model import PeerModel
from engines.decoders import FrameRegion
from engines.engine import CHANNELS, Images


class PeerDetector:
    """A model that classifies whole pictures of the model's size."""

    def __init__(self, folder: Path) -> None:
        self._model = PeerModel(folder)
        spec = self._model.input
        self._shape = (spec.height, spec.width, CHANNELS)
        self._region = FrameRegion.whole(spec.width, spec.height)

    def picture(self, body: bytes) -> Images:
        """Return the pixels of one request, ``(height, width, 3)`` uint8."""
        return np.frombuffer(body, np.uint8).reshape(self._shape)

    def detect(self, pictures: Sequence[Images]) -> list[list[dict[str, Any]]]:
        """Return the detections of each picture, as values that JSON can encode."""
        found = self._model.detections(np.stack(pictures), [self._region] * len(pictures))
        return [[detection.model_dump() for detection in picture] for picture in found]


def server_options() -> ArgumentParser:
    """Return a parser of the options that the servers of LitServe and Ray Serve share."""
    parser = ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--wait-s", type=float, required=True)
    return parser
