"""The decoders of classifiers. Softmax and binary give one label per region, and sigmoid any number of labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from engines.decoders.base import DecoderOptions, FrameRegion, clipped, only_output
from engines.decoders.checks import are_scores, not_scores
from engines.decoders.settings import NoSettings, read_settings
from engines.engine import Outputs
from engines.exceptions import InferenceFailed
from ingest.contract.records import Detection

BACKGROUND = "background"
"""Label of a class that means "no object". The decoders never return a detection with this label."""

_BINARY = 2
"""Number of labels of a model with a single sigmoid unit as output."""
_ROUNDING = 0.05
"""Maximum difference between 1 and the sum of an image's class probabilities; low-precision models round each
probability. If the sum differs from 1 by more than ``_ROUNDING``, the decoder treats the numbers as logits."""


@runtime_checkable
class ClassifierDecoder(Protocol):
    """The interface of decoders that label a whole region."""

    def probabilities(self, outputs: Outputs, rows: int) -> npt.NDArray[np.float32]:
        """Return the score of each label for each of ``rows`` images, ``(rows, labels)``, 0..1.

        Raise InferenceFailed if the outputs do not have the shape that the decoder reads.
        """


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
        found = self.probabilities(outputs, len(rows))
        return [_most_likely(scores, row, self._options) for scores, row in zip(found, rows, strict=True)]

    def probabilities(self, outputs: Outputs, rows: int) -> npt.NDArray[np.float32]:
        """Return the probability of each label, ``(rows, labels)``."""
        return _probabilities(only_output(outputs, (rows, len(self._options.labels))))

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


class BinaryDecoder:
    """Decoder of one score between 0 and 1 per image, of the shape ``(N, 1)`` or ``(N,)``: the probability of the
    second of two labels.

    A model of this kind ends with a single unit with a sigmoid. The command that adds a model appends a sigmoid to a
    model that returns logits.
    """

    def __init__(self, options: DecoderOptions) -> None:
        read_settings(NoSettings, "binary", options.settings)
        self._options = options

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return a detection of the more likely label of each region.

        A region gives no detection if the more likely label is the background or scores below ``min_score``.
        """
        found = self.probabilities(outputs, len(rows))
        return [_most_likely(scores, row, self._options) for scores, row in zip(found, rows, strict=True)]

    def probabilities(self, outputs: Outputs, rows: int) -> npt.NDArray[np.float32]:
        """Return the probabilities of both labels, ``(rows, 2)``."""
        if len(self._options.labels) != _BINARY:
            raise InferenceFailed(
                f"the model has labels {', '.join(self._options.labels)}: expected {_BINARY} labels for the decoder "
                "binary. Use the decoder sigmoid for one label"
            )
        outputs = {name: values[:, None] if values.ndim == 1 else values for name, values in outputs.items()}
        second = np.clip(only_output(outputs, (rows, 1)), 0.0, 1.0)
        return np.concatenate([1.0 - second, second], axis=1)

    def misfit(self, outputs: Outputs) -> str:
        """Return the reason why the outputs are not scores between 0 and 1, or "" if they are."""
        return not_scores(next(iter(outputs.values())), "End the model with a sigmoid")


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
        scores = self.probabilities(outputs, len(rows))
        return [self._decode_row(values, row) for values, row in zip(scores, rows, strict=True)]

    def probabilities(self, outputs: Outputs, rows: int) -> npt.NDArray[np.float32]:
        """Return the independent score of each label, ``(rows, labels)``."""
        if len(self._options.labels) == 1:
            outputs = {name: values[:, None] if values.ndim == 1 else values for name, values in outputs.items()}
        return only_output(outputs, (rows, len(self._options.labels)))

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


def _most_likely(scores: npt.NDArray[np.float32], row: FrameRegion, options: DecoderOptions) -> list[Detection]:
    """Return a detection of a region's most likely label, or nothing if the label is the background or scores below
    ``min_score``."""
    index = int(scores.argmax())
    score, label = float(scores[index]), options.labels[index]
    box = clipped(row.region.box, row)
    if label == BACKGROUND or score < options.min_score or box is None:
        return []
    return [Detection(box=box, label=label, class_id=index, score=score)]


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
