"""Images of random noise, which serve to check the outputs of a model, and the difference of two outputs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.engine import CHANNELS, Images

NOISE_IMAGES = 3
"""Number of noise images with which a model is checked."""
_DARKEST = 0.3
"""Brightness of the last noise image, as a fraction of the first image's brightness."""


def noise_images(width: int, height: int, count: int = NOISE_IMAGES) -> Images:
    """Return images of random noise, ``(count, height, width, 3)`` uint8, which are the same at every call.

    The images differ in brightness, so that no two images have the same mean.
    """
    noise = np.random.default_rng(0).integers(0, 256, (count, height, width, CHANNELS))
    return np.asarray(noise * np.linspace(1.0, _DARKEST, count)[:, None, None, None], np.uint8)


def largest_difference(pairs: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> float:
    """Return the largest difference of any pair of expected and found outputs; 0.0 without a pair.

    The difference of a pair is relative to the largest expected value, if this value exceeds 1. Both arrays of a pair
    have the same shape. The result is NaN if a pair differs and has NaN or infinite values.
    """
    return float(
        np.max([_difference(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs], initial=0.0)
    )


def _difference(expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> float:
    if np.array_equal(expected, found, equal_nan=True):
        return 0.0
    return float(np.abs(expected - found).max()) / max(1.0, float(np.abs(expected).max()))
