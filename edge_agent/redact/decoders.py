"""Decoders that convert a detector's raw outputs to boxes. Pure.

UltraFace is a single shot detector (SSD; Liu et al., ECCV 2016). UltraFace encodes each box as an offset from a prior
box, with variances 0.1 for the centre and 0.2 for the size. YOLOX (Ge et al., 2021) encodes boxes as offsets from the
cells of three grids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Decode = Callable[[Mapping[str, Floats], int, int], tuple[Floats, Floats]]
"""Function that computes boxes and scores from a model's outputs and from the width and height of the model's input
in px.

Boxes are ``(N, 4)``: left, top, right and bottom as shares of the input's width and height. Scores are ``(N,
classes)``: one score for each box and class. A decoder raises ValueError for outputs of an unexpected shape."""

_PRIORS = {8: (10.0, 16.0, 24.0), 16: (32.0, 48.0), 32: (64.0, 96.0), 64: (128.0, 192.0, 256.0)}
"""Widths in px of UltraFace's square prior boxes, by the stride in px of the feature map that has these boxes."""
_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2
_YOLOX_STRIDES = (8, 16, 32)
_MAX_LOG_SIZE = 10.0
"""Maximum natural logarithm of a box's size, relative to the prior box or to the stride. Without a limit, outputs of
a damaged model could overflow the exponential function."""


def ultraface(outputs: Mapping[str, Floats], width: int, height: int) -> tuple[Floats, Floats]:
    """Decode ``scores (1, N, 2)`` of background and face, and ``boxes (1, N, 4)``, which are offsets from prior
    boxes.
    """
    scores, offsets = _pair(outputs)
    priors = _priors(width, height)
    _expect(offsets.shape == priors.shape, f"{len(offsets)} boxes, expected {len(priors)} for {width}×{height}")
    centre = priors[:, :2] + offsets[:, :2] * _CENTRE_VARIANCE * priors[:, 2:]
    half = priors[:, 2:] * np.exp(np.minimum(offsets[:, 2:] * _SIZE_VARIANCE, _MAX_LOG_SIZE)) / 2
    return np.concatenate([centre - half, centre + half], axis=1), scores[:, 1:]


def corners(outputs: Mapping[str, Floats], width: int, height: int) -> tuple[Floats, Floats]:
    """Decode ``scores (1, N, classes)``, where class 0 is background, and box corners ``boxes (1, N, 4)`` as shares
    of the input.
    """
    scores, boxes = _pair(outputs)
    return boxes, scores[:, 1:]


def yolox(outputs: Mapping[str, Floats], width: int, height: int) -> tuple[Floats, Floats]:
    """Decode outputs ``(1, N, 5 + classes)`` with offset, size, objectness and class scores of each grid cell."""
    _expect(len(outputs) == 1, f"{len(outputs)} outputs, expected one")
    raw = next(iter(outputs.values()))
    cells, strides = _cells(width, height)
    _expect(
        raw.ndim == 3 and raw.shape[1] == len(cells) and raw.shape[2] > 5,
        f"output of shape {raw.shape}, expected (1, {len(cells)}, 5 + classes)",
    )
    centre = (raw[0, :, :2] + cells) * strides
    half = np.exp(np.minimum(raw[0, :, 2:4], _MAX_LOG_SIZE)) * strides / 2
    scale = np.array([width, height, width, height], np.float32)
    boxes = np.concatenate([centre - half, centre + half], axis=1) / scale
    return boxes.astype(np.float32), raw[0, :, 4:5] * raw[0, :, 5:]


DECODERS: dict[str, Decode] = {"corners": corners, "ultraface": ultraface, "yolox": yolox}


def _pair(outputs: Mapping[str, Floats]) -> tuple[Floats, Floats]:
    _expect({"scores", "boxes"} <= set(outputs), f"outputs {sorted(outputs)}, expected scores and boxes")
    scores, boxes = outputs["scores"], outputs["boxes"]
    fits = scores.ndim == boxes.ndim == 3 and scores.shape[1] == boxes.shape[1] and boxes.shape[2] == 4
    _expect(
        fits and scores.shape[2] > 1,
        f"scores {scores.shape} and boxes {boxes.shape}, expected (1, N, classes) and (1, N, 4)",
    )
    return scores[0], boxes[0]


@cache
def _priors(width: int, height: int) -> Floats:
    """Return the centre and size of each prior box as shares of the input, ``(N, 4)``, in the order of the model's
    outputs.
    """
    found = []
    for stride, sides in _PRIORS.items():
        columns, rows = -(-width // stride), -(-height // stride)
        down, across = np.mgrid[:rows, :columns].astype(np.float32) + 0.5
        for_each = [(across / columns, down / rows, side / width, side / height) for side in sides]
        maps = [np.stack(np.broadcast_arrays(*map(np.asarray, part)), axis=-1) for part in for_each]
        found.append(np.stack(maps, axis=2).reshape(-1, 4))
    priors: Floats = np.clip(np.concatenate(found), 0, 1).astype(np.float32)
    return priors


@cache
def _cells(width: int, height: int) -> tuple[Floats, Floats]:
    """Return column and row of each grid cell, ``(N, 2)``, and the stride of its grid in px, ``(N, 1)``."""
    grids = [np.mgrid[: height // s, : width // s][::-1].reshape(2, -1).T for s in _YOLOX_STRIDES]
    strides = [np.full((len(grid), 1), s, np.float32) for grid, s in zip(grids, _YOLOX_STRIDES, strict=True)]
    return np.concatenate(grids).astype(np.float32), np.concatenate(strides)


def _expect(valid: bool, problem: str) -> None:
    if not valid:
        raise ValueError(problem)
