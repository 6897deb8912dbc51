"""Measures of a classifier on labelled pictures: confusion, precision, recall, intervals and calibration. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_Z = 1.959964
"""Quantile of the normal distribution for intervals of 95 %."""
_BINS = 10


class MeasuredShare(NamedTuple):
    """A share of ``total`` cases, with the limits of its 95 % interval. If there are no cases, the share is 0 and its
    interval is 0 to 1."""

    value: float
    low: float
    high: float
    total: int


class ClassMeasures(NamedTuple):
    """Precision and recall of one label."""

    label: str
    precision: MeasuredShare
    recall: MeasuredShare


class CalibrationBin(NamedTuple):
    """One bin of the highest scores of pictures, of ten bins of equal width: number of pictures, mean score, and
    share of right labels."""

    pictures: int
    score: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measures of a classifier on labelled pictures. ``confusion`` has a row for each true label and a column for
    each found label."""

    labels: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    accuracy: MeasuredShare
    classes: tuple[ClassMeasures, ...]
    calibration: tuple[CalibrationBin, ...]
    calibration_error: float
    """Expected calibration error (Guo et al., 2017, https://arxiv.org/abs/1706.04599): the mean difference of score
    and accuracy over the bins, weighted by their pictures."""
    mistakes: tuple[int, ...]
    """Indices of the pictures with wrong labels, the picture with the highest score first."""


def evaluated(
    labels: tuple[str, ...], classes: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float32]
) -> Evaluation:
    """Return the measures of the scores ``(N, labels)`` against the class indices ``(N,)``. The number of pictures N
    must be at least 1."""
    found, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    matrix = confusion_matrix(classes, found, len(labels))
    right = found == classes
    bins = _calibration(scores, right)
    wrong = np.flatnonzero(~right)
    return Evaluation(
        labels=labels,
        confusion=matrix,
        accuracy=wilson(int(right.sum()), len(right)),
        classes=tuple(
            ClassMeasures(
                label,
                wilson(int(matrix[i, i]), int(matrix[:, i].sum())),
                wilson(int(matrix[i, i]), int(matrix[i].sum())),
            )
            for i, label in enumerate(labels)
        ),
        calibration=bins,
        calibration_error=sum(one.pictures * abs(one.score - one.accuracy) for one in bins) / len(right),
        mistakes=tuple(int(i) for i in wrong[np.argsort(-scores[wrong], kind="stable")]),
    )


def wilson(hits: int, total: int) -> MeasuredShare:
    """Return a share with its Wilson score interval (Wilson, 1927, https://doi.org/10.2307/2276774)."""
    if total == 0:
        return MeasuredShare(0.0, 0.0, 1.0, 0)
    share, square = hits / total, _Z**2
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = _Z / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total**2))
    return MeasuredShare(share, max(0.0, centre - half), min(1.0, centre + half), total)


def confusion_matrix(
    truth: npt.NDArray[np.int64], found: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """Return the number of images per true class (row) and predicted class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth, found), 1)
    return matrix


def recall_per_class(matrix: npt.NDArray[np.int64]) -> list[float]:
    """Return the recall of each class, which is the share of the class's images that were recognised; 0 for a class
    without images."""
    totals = matrix.sum(axis=1)
    return [
        round(float(hit) / total, 4) if total else 0.0 for hit, total in zip(matrix.diagonal(), totals, strict=True)
    ]


def _calibration(scores: npt.NDArray[np.float32], right: npt.NDArray[np.bool_]) -> tuple[CalibrationBin, ...]:
    numbers = np.minimum((scores * _BINS).astype(np.int64), _BINS - 1)
    return tuple(
        CalibrationBin(int(chosen.sum()), float(scores[chosen].mean()), float(right[chosen].mean()))
        if (chosen := numbers == number).any()
        else CalibrationBin(0, 0.0, 0.0)
        for number in range(_BINS)
    )
