"""The decoder of YOLOX grid outputs (Ge et al., 2021, https://arxiv.org/abs/2107.08430)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.decoders.base import DecoderOptions, FrameRegion, only_output
from engines.decoders.boxes import FAR, LARGEST_LOG, Floats, Indices, kept_boxes, likely_cells
from engines.decoders.checks import not_scores
from engines.decoders.settings import NoSettings, read_settings
from engines.engine import Outputs
from ingest.contract.records import Detection

STRIDES = (8, 16, 32)


class YoloxDecoder:
    """Decoder of ``(N, cells, 5 + classes)``: centre offset, log size, objectness and class scores per grid cell."""

    def __init__(self, options: DecoderOptions) -> None:
        read_settings(NoSettings, "yolox", options.settings)
        self._options = options
        self._grid, self._stride = _grid(options.input_width, options.input_height)

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the boxes of each image after non-maximum suppression per class."""
        raw = only_output(outputs, (len(rows), len(self._grid), 5 + len(self._options.labels)))
        return [self._decode_row(cells, row) for cells, row in zip(raw, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return why the outputs are not raw YOLOX outputs, for example because boxes are in px; "" if they are."""
        raw = next(iter(outputs.values()))
        reason = not_scores(raw[..., 4:], "Export the model with its sigmoids")
        if reason:
            return reason
        as_offset = np.median(np.abs(raw[..., :2]))
        as_pixels = np.median(np.abs(raw[..., :2] / self._stride[:, None] - self._grid))
        if as_pixels < as_offset:  # decoded centres lie near their own cells, raw offsets near zero
            return (
                "box centres are pixels of the input: expected offsets from grid cells. "
                "Use the decoder yolov5, or export the model with decode_in_inference = False"
            )
        return ""

    def _decode_row(self, cells: Floats, row: FrameRegion) -> list[Detection]:
        indices, classes, best = likely_cells(cells, self._options.min_score)
        return kept_boxes(self._corners(cells[indices], indices), best, classes, row, self._options)

    def _corners(self, cells: Floats, indices: Indices) -> Floats:
        stride = self._stride[indices, None]
        centre = (cells[:, :2].clip(-FAR, FAR) + self._grid[indices]) * stride
        half = np.exp(cells[:, 2:4].clip(max=LARGEST_LOG)) * stride / 2
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


def _grid(width: int, height: int) -> tuple[Floats, Floats]:
    cells, strides = [], []
    for stride in STRIDES:
        ys, xs = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([xs.ravel(), ys.ravel()], axis=1))
        strides.append(np.full(xs.size, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)
