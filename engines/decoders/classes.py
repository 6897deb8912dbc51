"""The decoders of classifiers. Softmax gives one label per region, and sigmoid any number of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engines.decoders.base import DecoderOptions, FrameRegion, clipped, only_output
from engines.decoders.checks import are_scores, not_scores
from engines.decoders.settings import NoSettings, read_settings
from engines.engine import Outputs
from ingest.contract.records import Detection

BACKGROUND = "background"
"""Label of a class that means "no object". The decoders never return a detection with this label."""

_ROUNDING = 0.05
"""Maximum difference between 1 and the sum of an image's class probabilities; low-precision models round each
probability. If the difference is larger, the decoder treats the numbers as logits."""


class SoftmaxDecoder:
    """Decoder of class probabilities or logits of the shape ``(N, classes)``.

    A detection has the box of the classified region.
    """

    def __init__(self, options: DecoderOptions) -> None:
        read_settings(NoSettings, "softmax", options.settings)
        self._options = options

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return a detection of the most likely class of each region.

        A region gives no detection if its most likely class is the background or scores below ``min_score``.
        """
        best = _probabilities(only_output(outputs, (len(rows), len(self._options.labels))))
        return [self._decode_row(probabilities, row) for probabilities, row in zip(best, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return a reason if the model has only one class, or if the scores are independent, else ""."""
        if len(self._options.labels) == 1:
            return "a softmax over one label is always 1"
        scores = next(iter(outputs.values()))
        if are_scores(scores) and (np.abs(scores.sum(axis=1) - 1.0) > _ROUNDING).any():
            return (
                f"scores of one image lie between 0 and 1 and sum to {scores[0].sum():.3g}: expected probabilities "
                "that sum to 1, or logits. Use the decoder sigmoid for independent labels"
            )
        return ""

    def _decode_row(self, probabilities: npt.NDArray[np.float32], row: FrameRegion) -> list[Detection]:
        index = int(probabilities.argmax())
        score, label = float(probabilities[index]), self._options.labels[index]
        box = clipped(row.region.box, row)
        if label == BACKGROUND or score < self._options.min_score or box is None:
            return []
        return [Detection(box=box, label=label, class_id=index, score=score)]


class SigmoidDecoder:
    """Decoder of independent class scores between 0 and 1, of the shape ``(N, classes)``.

    If the model has a single label, the shape ``(N,)`` is accepted too. A region gets every label whose score reaches
    ``min_score``. The command that adds a model appends a sigmoid to a model that returns logits.
    """

    def __init__(self, options: DecoderOptions) -> None:
        read_settings(NoSettings, "sigmoid", options.settings)
        self._options = options

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return a detection of the whole region for each label with a score of at least ``min_score``.

        The background label gives no detection.
        """
        if len(self._options.labels) == 1:
            outputs = {name: values[:, None] if values.ndim == 1 else values for name, values in outputs.items()}
        scores = only_output(outputs, (len(rows), len(self._options.labels)))
        return [self._decode_row(values, row) for values, row in zip(scores, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return the reason why the outputs are not scores between 0 and 1, or "" if they are."""
        return not_scores(next(iter(outputs.values())), "End the model with a sigmoid")

    def _decode_row(self, scores: npt.NDArray[np.float32], row: FrameRegion) -> list[Detection]:
        box = clipped(row.region.box, row)
        if box is None:
            return []
        likely = [int(i) for i in np.argsort(-scores, kind="stable") if scores[i] >= self._options.min_score]
        return [
            Detection(box=box, label=self._options.labels[i], class_id=i, score=min(float(scores[i]), 1.0))
            for i in likely
            if self._options.labels[i] != BACKGROUND
        ]


def _probabilities(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Convert each row to probabilities: apply a softmax to logits, and scale probabilities to a sum of 1.

    The function decides for each row alone whether the row holds logits, so that the result for an image does not
    depend on the other images of its batch.
    """
    sums = scores.sum(axis=1, keepdims=True)
    given = (scores >= 0.0).all(axis=1, keepdims=True) & (np.abs(sums - 1.0) <= _ROUNDING)
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    softmax = exponents / exponents.sum(axis=1, keepdims=True)
    return np.asarray(np.where(given, scores / np.where(given, sums, 1.0), softmax), np.float32)
