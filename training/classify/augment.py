"""Random changes of training pictures: mirror, shift, zoom, turn, brightness and contrast.

The changes of a picture depend only on the seed, the training epoch and the index of the picture. A training that
resumes in the middle of an epoch, or that runs on several machines, therefore sees the same pictures. Pure.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Strength = Literal["none", "light", "strong"]


class _Limits(NamedTuple):
    """Largest change: shift as a share of the size, zoom as a share, turn in degrees, brightness in grey levels,
    contrast as a share."""

    shift: float
    zoom: float
    turn: float
    brightness: float
    contrast: float


_LIMITS: dict[Strength, _Limits] = {
    "light": _Limits(0.05, 0.1, 5.0, 16.0, 0.15),
    "strong": _Limits(0.12, 0.25, 15.0, 40.0, 0.3),
}
_VALUES = 7
"""Number of random numbers for each picture."""


class Augmentation:
    """The changes of all pictures in one training epoch."""

    def __init__(self, strength: Strength, flip: bool, seed: int, epoch: int, pictures: int) -> None:
        self._limits, self._flip = _LIMITS.get(strength), flip
        self._values = np.random.default_rng([seed, epoch, 1]).uniform(-1.0, 1.0, (pictures, _VALUES))

    def apply(self, images: npt.NDArray[np.uint8], indices: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
        """Return changed copies of the images with the given indices."""
        if self._limits is None:
            return np.asarray(images[indices])
        return np.stack([self._changed(images[i], self._values[i], self._limits) for i in indices])

    def _changed(
        self, image: npt.NDArray[np.uint8], values: npt.NDArray[np.float64], limits: _Limits
    ) -> npt.NDArray[np.uint8]:
        height, width = image.shape[:2]
        across, down, zoom, turn, brightness, contrast, mirror = values
        matrix = cv2.getRotationMatrix2D(
            ((width - 1) / 2, (height - 1) / 2), turn * limits.turn, 1.0 + zoom * limits.zoom
        )
        if self._flip and mirror < 0:
            matrix = matrix @ np.array([[-1.0, 0.0, width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        matrix[:, 2] += (across * limits.shift * width, down * limits.shift * height)
        moved = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        gain = 1.0 + contrast * limits.contrast
        table = np.clip((np.arange(256) - 128.0) * gain + 128.0 + brightness * limits.brightness, 0, 255)
        return np.asarray(cv2.LUT(moved, table.astype(np.uint8)), np.uint8)


def order_of(seed: int, epoch: int, pictures: int) -> npt.NDArray[np.intp]:
    """Return the order in which one training epoch takes the training pictures."""
    return np.random.default_rng([seed, epoch, 0]).permutation(pictures)
