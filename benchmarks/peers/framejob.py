"""Work on one frame without Kafka: decode, resize, inference, detections. The bare loop and the peers run this work.

The environments of the peers import this module, so it imports few packages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.peers.model import PeerModel
from engines.decoders import FrameRegion
from engines.engine import CHANNELS, Images
from ingest.contract.records import Box, Canvas, Detection, padded_rows
from ingest.picture import draw
from ingest.site import PipelineConfig
from stream.prepare.regions import windows


class PreparedFrame(NamedTuple):
    """The model's input for one frame: an image per region, and the places of the regions in the frame."""

    images: Images
    regions: Sequence[FrameRegion]


class FrameJob:
    """A model, with Sightline's own functions that prepare a frame for inference.

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
        images, regions = self.prepare(jpeg, motion, denoise)
        return [detection for region in self._model.detections(images, regions) for detection in region]

    def prepare(
        self,
        jpeg: bytes,
        motion: Sequence[Box],
        denoise: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]] | None = None,
    ) -> PreparedFrame:
        """Decode a frame, and crop and resize its regions for the model."""
        image = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), np.uint8)
        if denoise:
            image = denoise(image)
        height, width = image.shape[:2]
        cut = windows(self._pipeline, (width, height), motion, self._pipeline.max_regions)
        parts = [draw(image, window, self._pipeline.colour) for window in cut]
        rows = padded_rows(self._canvas, self._model.input.pad, [window.region.inner for window in cut], parts)
        return PreparedFrame(rows, [FrameRegion(window.region, width, height) for window in cut])

    def detect(self, frames: Sequence[PreparedFrame]) -> list[list[Detection]]:
        """Return the detections in each of several frames, from one inference. Each frame in ``frames`` must have one
        region."""
        regions = [region for frame in frames for region in frame.regions]
        return self._model.detections(np.concatenate([frame.images for frame in frames]), regions)
