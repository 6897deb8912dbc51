"""Decoders of YOLO models that give boxes in px of their input: YOLOv5 to v7, YOLOv8, v9 and v11.

The output layouts are those of the YOLO models' ONNX exports (https://docs.ultralytics.com/modes/export/).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.decoders.base import DecoderOptions, FrameRegion, only_output
from engines.decoders.boxes import Floats, best_boxes, from_centres, kept_boxes, likely_cells
from engines.decoders.checks import not_pixels, not_scores, not_sizes
from engines.decoders.settings import NoSettings, read_settings
from engines.engine import Outputs
from ingest.contract.records import Detection

_SIGMOIDS = "Export the model with its sigmoids"
_RAW = "Use the decoder yolox for a raw grid"
_PIXELS = "Export the model with boxes in px"


class Yolov5Decoder:
    """Decoder of YOLOv5 to YOLOv7: ``(N, cells, 5 + classes)`` with centre and size in px, objectness, class scores.

    A YOLOX model that is exported with ``decode_in_inference = True`` has the output layout of YOLOv5.
    """

    def __init__(self, options: DecoderOptions) -> None:
        read_settings(NoSettings, "yolov5", options.settings)
        self._options = options

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the boxes of each image after non-maximum suppression."""
        raw = only_output(outputs, (len(rows), "cells", 5 + len(self._options.labels)))
        return [self._decode_row(cells, row) for cells, row in zip(raw, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return why the outputs are not boxes in px with class scores; "" if they are."""
        raw = next(iter(outputs.values()))
        return (
            not_scores(raw[..., 4:], _SIGMOIDS)
            or not_sizes(raw[..., :4], _RAW)
            or not_pixels(raw[..., :4], f"{_PIXELS}. {_RAW}")
        )

    def _decode_row(self, cells: Floats, row: FrameRegion) -> list[Detection]:
        indices, classes, best = likely_cells(cells, self._options.min_score)
        return kept_boxes(from_centres(cells[indices, :4]), best, classes, row, self._options)


class Yolov8Decoder:
    """Decoder of YOLOv8, v9 and v11: ``(N, 4 + classes, cells)`` with centre and size in px, and class scores."""

    def __init__(self, options: DecoderOptions) -> None:
        read_settings(NoSettings, "yolov8", options.settings)
        self._options = options

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the boxes of each image after non-maximum suppression."""
        raw = only_output(outputs, (len(rows), 4 + len(self._options.labels), "cells"))
        return [
            best_boxes(from_centres(cells[:, :4]), cells[:, 4:], row, self._options)
            for cells, row in zip(raw.transpose(0, 2, 1), rows, strict=True)
        ]

    def misfit(self, outputs: Outputs) -> str:
        """Return why the outputs are not boxes in px with class scores; "" if they are."""
        raw: Floats = np.moveaxis(next(iter(outputs.values())), 1, 2)
        return (
            not_scores(raw[..., 4:], _SIGMOIDS)
            or not_sizes(raw[..., :4], _PIXELS)
            or not_pixels(raw[..., :4], _PIXELS)
        )
