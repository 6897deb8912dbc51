"""Labelled regions as arrays, and the accuracy of a classifier on them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class LabelledRegions:
    """Images ``(N, height, width, 3)`` uint8 BGR and their class indices ``(N,)``."""

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]

    @classmethod
    def concatenate(cls, parts: Iterable[LabelledRegions]) -> LabelledRegions:
        """Return the regions of all parts, in order."""
        regions = list(parts)
        return cls(np.concatenate([r.images for r in regions]), np.concatenate([r.classes for r in regions]))

    def balanced(self, most: int, seed: int) -> LabelledRegions:
        """Return at most ``most`` images of each class, drawn at random, in random order."""
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(np.flatnonzero(self.classes == label))[:most] for label in np.unique(self.classes)]
        order = rng.permutation(np.concatenate(chosen))
        return LabelledRegions(self.images[order], self.classes[order])

    def __len__(self) -> int:
        return len(self.classes)


def confusion_matrix(
    truth: npt.NDArray[np.int64], found: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.int64]:
    """Return the number of images per true class (row) and found class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth, found), 1)
    return matrix


def recall_per_class(matrix: npt.NDArray[np.int64]) -> list[float]:
    """Return the share of each class that was recognised (recall); 0 for a class without images."""
    totals = matrix.sum(axis=1)
    return [
        round(float(hit) / total, 4) if total else 0.0 for hit, total in zip(matrix.diagonal(), totals, strict=True)
    ]
