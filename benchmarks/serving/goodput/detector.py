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
import onnxruntime as ort

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion
from engines.engine import CHANNELS, Images
from engines.repository.manifest import Model, read_manifest


class PeerDetector:
    """A model from a model folder, in an ONNX Runtime session with one thread."""

    def __init__(self, folder: Path) -> None:
        model = Model(read_manifest(folder), folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        spec = model.manifest.input
        self._input, self._shape = spec.name, (spec.height, spec.width, CHANNELS)
        self._region = FrameRegion.whole(spec.width, spec.height)
        self._decoder = decoders.make(model.manifest.decoder, DecoderOptions.of(model.manifest))

    def picture(self, body: bytes) -> Images:
        """Return the pixels of one request, ``(height, width, 3)`` uint8."""
        return np.frombuffer(body, np.uint8).reshape(self._shape)

    def detect(self, pictures: Sequence[Images]) -> list[list[dict[str, Any]]]:
        """Return the detections of each picture, as values that JSON can encode."""
        arrays = self._session.run(self._names, {self._input: np.stack(pictures)})
        found = self._decoder.decode(dict(zip(self._names, arrays, strict=True)), [self._region] * len(pictures))
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
