"""Work on one frame without Kafka: decode, resize, inference, detections. The bare loop and the peers run this work.

The environments of the peers import this module, so it imports little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion
from engines.engine import CHANNELS
from engines.repository.manifest import Model, read_manifest
from ingest.contract.records import Box, Canvas, Detection, padded_rows
from ingest.picture import draw
from ingest.site import PipelineConfig
from stream.prepare.regions import windows


class FrameJob:
    """A model in an ONNX Runtime session with one thread, and the product's functions before and after inference.

    ``folder`` is the folder of the model. Several threads may call ``detections`` at the same time.
    """

    def __init__(self, folder: Path, pipeline: PipelineConfig) -> None:
        model = Model(read_manifest(folder), folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self._spec = model.manifest.input
        self._canvas = Canvas(self._spec.height, self._spec.width, CHANNELS)
        self._decoder = decoders.make(model.manifest.decoder, DecoderOptions.of(model.manifest))
        self._pipeline = pipeline

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
        rows = padded_rows(self._canvas, self._spec.pad, [window.region.inner for window in cut], parts)
        arrays = self._session.run(self._names, {self._spec.name: rows})
        regions = [FrameRegion(window.region, width, height) for window in cut]
        decoded = self._decoder.decode(dict(zip(self._names, arrays, strict=True)), regions)
        return [detection for region in decoded for detection in region]
