"""The decoder of classifiers: at most one label per region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engines.decoders.base import DecoderOptions, FrameRegion, clipped, only_output
from engines.engine import Outputs
from ingest.contract.records import Detection

BACKGROUND = "background"
"""Label of a region without an object. It never becomes a detection."""

_ROUNDING = 0.05
"""Tolerance for probabilities to sum to 1. Low-precision models round; logits sum to 1 only by chance."""


class SoftmaxDecoder:
    """Decoder of class probabilities or logits ``(N, classes)``. A detection's box is the box of its region."""

    def __init__(self, options: DecoderOptions) -> None:
        self._options = options

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the most likely class of each region, unless it is the background or scores below ``min_score``."""
        best = _probabilities(only_output(outputs, (len(rows), len(self._options.labels))))
        return [self._decode_row(probabilities, row) for probabilities, row in zip(best, rows, strict=True)]

    def _decode_row(self, probabilities: npt.NDArray[np.float32], row: FrameRegion) -> list[Detection]:
        index = int(probabilities.argmax())
        score, label = float(probabilities[index]), self._options.labels[index]
        box = clipped(row.region.box, row)
        if label == BACKGROUND or score < self._options.min_score or box is None:
            return []
        return [Detection(box=box, label=label, class_id=index, score=score)]


def _probabilities(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return probabilities. Decide row by row whether scores are logits, so that rows of a batch are independent."""
    sums = scores.sum(axis=1, keepdims=True)
    given = (scores >= 0.0).all(axis=1, keepdims=True) & (np.abs(sums - 1.0) <= _ROUNDING)
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    softmax = exponents / exponents.sum(axis=1, keepdims=True)
    return np.asarray(np.where(given, scores / np.where(given, sums, 1.0), softmax), np.float32)
