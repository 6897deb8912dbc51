"""Images of noise, on which the outputs of a model are judged."""

from __future__ import annotations

import numpy as np

from engines.engine import CHANNELS, Images

NOISE_IMAGES = 3
"""Number of images on which a model is judged."""
_DARKEST = 0.3
"""Brightness of the last image as a share of the first."""


def noise_images(width: int, height: int, count: int = NOISE_IMAGES) -> Images:
    """Return the same images at each call, ``(count, height, width, 3)`` uint8.

    Each image has another brightness, so that no two have the same mean.
    """
    noise = np.random.default_rng(0).integers(0, 256, (count, height, width, CHANNELS))
    return np.asarray(noise * np.linspace(1.0, _DARKEST, count)[:, None, None, None], np.uint8)
