"""Labelled regions, as arrays. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Regions:
    """Pictures ``(N, height, width, 3)`` uint8 BGR and their classes ``(N,)``."""

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]

    def balanced(self, most: int, seed: int) -> Regions:
        """Return at most so many pictures of each class, drawn at random, in random order."""
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(np.flatnonzero(self.classes == label))[:most] for label in np.unique(self.classes)]
        order = rng.permutation(np.concatenate(chosen))
        return Regions(self.images[order], self.classes[order])

    def __len__(self) -> int:
        return len(self.classes)


def confusion(truth: npt.NDArray[np.int64], found: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """Return how often each true class (row) was taken for each class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (truth, found), 1)
    return matrix


def per_class(matrix: npt.NDArray[np.int64]) -> list[float]:
    """Return the share of each class that was recognised; 0 for a class without examples."""
    totals = matrix.sum(axis=1)
    return [
        round(float(hit) / total, 4) if total else 0.0 for hit, total in zip(matrix.diagonal(), totals, strict=True)
    ]
