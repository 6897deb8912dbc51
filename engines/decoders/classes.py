"""Decoders of classifiers: one label per region."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engines.decoders.base import DecoderOptions, FrameRegion, clipped, only_output
from engines.engine import Outputs
from ingest.contract.records import Detection

BACKGROUND = "background"
"""The label of a region that shows nothing of interest: it is no detection."""

_ROUNDING = 0.05
"""Probabilities of a model with few bits sum to 1 within this; logits do so by chance only."""


class SoftmaxDecoder:
    """Reads class probabilities ``(N, classes)``; logits are normalised first. The region's box is the object's."""

    def __init__(self, options: DecoderOptions) -> None:
        self._options = options

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the most likely class of each region, unless it is the background or not likely enough."""
        best = _probabilities(only_output(outputs, (len(rows), len(self._options.labels))))
        return [self._one(probabilities, row) for probabilities, row in zip(best, rows, strict=True)]

    def _one(self, probabilities: npt.NDArray[np.float32], row: FrameRegion) -> list[Detection]:
        index = int(probabilities.argmax())
        score, label = float(probabilities[index]), self._options.labels[index]
        box = clipped(row.region.box, row)
        if label == BACKGROUND or score < self._options.min_score or box is None:
            return []
        return [Detection(box=box, label=label, class_id=index, score=score)]


def _probabilities(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return each row as probabilities, by itself: what a picture shows must not depend on its company."""
    sums = scores.sum(axis=1, keepdims=True)
    given = (scores >= 0.0).all(axis=1, keepdims=True) & (np.abs(sums - 1.0) <= _ROUNDING)
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    softmax = exponents / exponents.sum(axis=1, keepdims=True)
    return np.asarray(np.where(given, scores / np.where(given, sums, 1.0), softmax), np.float32)
