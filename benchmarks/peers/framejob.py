"""Work on one frame without Kafka: decode, resize, inference, detections. The bare loop and the peers run this work.

The environments of the peers import this module, so it imports little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.peers.model import PeerModel
from engines.decoders import FrameRegion
from engines.engine import CHANNELS
from ingest.contract.records import Box, Canvas, Detection, padded_rows
from ingest.picture import draw
from ingest.site import PipelineConfig
from stream.prepare.regions import windows


class FrameJob:
    """A model, and the product's functions before inference.

    ``folder`` is the folder of the model. Several threads may call ``detections`` at the same time.
    """

    def __init__(self, folder: Path, pipeline: PipelineConfig) -> None:
        self._model, self._pipeline = PeerModel(folder), pipeline
        self._canvas = Canvas(self._model.input.height, self._model.input.width, CHANNELS)

    def detections(
        self,
        jpeg: bytes,
        motion: Sequence[Box],
        denoise: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]] | None = None,
    ) -> list[Detection]:
        """Return the detections in one frame. ``motion`` lists the bounding boxes of motion in px."""
        image = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)
        if denoise:
            image = denoise(image)
        height, width = image.shape[:2]
        cut = windows(self._pipeline, (width, height), motion, self._pipeline.max_regions)
        parts = [draw(image, window, self._pipeline.colour) for window in cut]
        rows = padded_rows(self._canvas, self._model.input.pad, [window.region.inner for window in cut], parts)
        found = self._model.detections(rows, [FrameRegion(window.region, width, height) for window in cut])
        return [detection for region in found for detection in region]
