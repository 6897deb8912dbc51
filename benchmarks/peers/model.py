"""A model as the peers run it: an ONNX Runtime session and the product's decoder.

The environments of all peers import this module, so it imports few packages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime as ort

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion
from engines.engine import Images
from engines.repository.manifest import Model, read_manifest
from ingest.contract.records import Detection


class PeerModel:
    """A model from a model folder, in an ONNX Runtime session with one thread.

    Several threads may call ``detections`` at the same time.
    """

    def __init__(self, folder: Path) -> None:
        model = Model(read_manifest(folder), folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self._decoder = decoders.make(model.manifest.decoder, DecoderOptions.of(model.manifest))
        self.input = model.manifest.input

    def detections(self, images: Images, regions: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the detections of each image. ``regions`` are the images' places in their frames."""
        arrays = self._session.run(self._names, {self.input.name: images})
        return self._decoder.decode(dict(zip(self._names, arrays, strict=True)), regions)
