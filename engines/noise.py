"""Images of random noise, which serve to check the outputs of a model."""

from __future__ import annotations

import numpy as np

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
