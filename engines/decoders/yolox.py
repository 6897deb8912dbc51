"""The decoder of YOLOX grid outputs (Ge et al., 2021, https://arxiv.org/abs/2107.08430)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from engines.decoders.base import DecoderOptions, FrameRegion, clipped, only_output
from engines.engine import Outputs
from ingest.contract.records import Box, Detection

STRIDES = (8, 16, 32)
_MAX_DETECTIONS = 300
"""Maximum number of detections per image. A COCO evaluation uses at most 100, and a crowded image has fewer than 300
objects."""

_FAR_CELLS, _LARGEST_LOG = 1e6, 14.0
"""Maximum offset of a box's centre in cells, and maximum logarithm of a box's size. Both values lie beyond any image
and prevent overflow."""

_OVER = 1e-3
"""Maximum distance of a score outside of 0 to 1, which comes from rounding in half precision."""

Floats = npt.NDArray[np.float32]


class YoloxDecoder:
    """Decoder of ``(N, cells, 5 + classes)``: centre, log size, objectness and class scores of each grid cell."""

    def __init__(self, options: DecoderOptions) -> None:
        self._options = options
        self._grid, self._stride = _grid(options.input_width, options.input_height)

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the boxes of each row after non-maximum suppression per class."""
        raw = only_output(outputs, (len(rows), len(self._grid), 5 + len(self._options.labels)))
        return [self._decode_row(cells, row) for cells, row in zip(raw, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return why the outputs are not a raw grid: scores without a sigmoid, or boxes decoded by the model."""
        raw = next(iter(outputs.values()))
        scores = raw[..., 4:]
        if scores.min() < -_OVER or scores.max() > 1.0 + _OVER:
            low, high = float(scores.min()), float(scores.max())
            return (
                f"objectness and class scores lie between {low:.3g} and {high:.3g}: expected 0 to 1. "
                "Export the model with its sigmoids"
            )
        as_offset = np.median(np.abs(raw[..., :2]))
        as_pixels = np.median(np.abs(raw[..., :2] / self._stride[:, None] - self._grid))
        if as_pixels < as_offset:  # decoded centres lie near their own cells, raw offsets near zero
            return (
                "box centres are pixels of the input: expected offsets from grid cells. "
                "Export the model with decode_in_inference = False"
            )
        return ""

    def _decode_row(self, cells: Floats, row: FrameRegion) -> list[Detection]:
        scores = cells[:, 4:5] * cells[:, 5:]
        classes = scores.argmax(axis=1)
        best = scores[np.arange(len(cells)), classes]
        likely = np.flatnonzero(best >= self._options.min_score)
        if not likely.size:
            return []
        corners = self._corners(cells[likely], likely)
        kept = _suppressed(corners, best[likely], classes[likely], self._options)
        found = (self._detection(corners[i], int(classes[likely[i]]), float(best[likely[i]]), row) for i in kept)
        return [detection for detection in found if detection is not None]

    def _corners(self, cells: Floats, indices: npt.NDArray[np.intp]) -> Floats:
        stride = self._stride[indices, None]
        centre = (cells[:, :2].clip(-_FAR_CELLS, _FAR_CELLS) + self._grid[indices]) * stride
        half = np.exp(cells[:, 2:4].clip(max=_LARGEST_LOG)) * stride / 2
        return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)

    def _detection(self, corners: Floats, index: int, score: float, row: FrameRegion) -> Detection | None:
        left, top, right, bottom = (float(v) for v in corners)
        box = clipped(row.region.fit.to_frame(Box(left, top, right, bottom)), row)
        if box is None:
            return None
        return Detection(box=box, label=self._options.labels[index], class_id=index, score=min(score, 1.0))


def _suppressed(corners: Floats, scores: Floats, classes: npt.NDArray[np.intp], options: DecoderOptions) -> list[int]:
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxesBatched(
        boxes.tolist(),
        scores.tolist(),
        classes.tolist(),
        options.min_score,
        options.max_overlap,
    )  # no top_k, which would drop candidates before suppression removes the overlapping ones
    return [int(i) for i in np.asarray(kept).flatten()[:_MAX_DETECTIONS]]


def _grid(width: int, height: int) -> tuple[Floats, Floats]:
    cells, strides = [], []
    for stride in STRIDES:
        ys, xs = np.mgrid[0 : height // stride, 0 : width // stride]
        cells.append(np.stack([xs.ravel(), ys.ravel()], axis=1))
        strides.append(np.full(xs.size, stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)
