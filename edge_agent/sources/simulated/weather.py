"""Effects of light, rain and sensor noise on a picture.

Pure: all random values depend only on the scene's seed and the frame's index.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.sources.simulated.config import SceneConfig

Image = npt.NDArray[np.uint8]

_BANK_MARGIN_PX = 64
"""Margin in px by which the noise field is larger than the picture. Each frame adds or subtracts a random window of
the noise field: 64² positions and two signs give 8,192 different noise patterns."""
_NIGHT = np.array([0.46, 0.36, 0.32], np.float32)
"""Share of daylight that remains at night, in blue, green and red."""
_STREAKS_PER_MEGAPIXEL = 900
_RAIN_DIM = 0.86
_READ_SHARE = 0.4
"""Share of read noise in the variance of the sensor noise at mid grey. The remaining variance is shot noise, which
grows with the light."""
_MID_GREY = 128.0
_NOISE_UNIT, _GAIN_UNIT = 16, 64
"""Integer that stands for one grey level in the noise field (16), and integer that stands for a gain of 1 in
``_GAIN`` (64)."""
_GAIN = (_GAIN_UNIT * np.sqrt(_READ_SHARE + (1 - _READ_SHARE) * np.arange(256) / _MID_GREY)).round().astype(np.int16)
"""Standard deviation of the noise at each grey level, relative to mid grey, by the Poissonian-Gaussian model (Foi et
al., IEEE TIP 2008)."""


class Weather:
    """Effects of light, rain and sensor noise in one scene."""

    def __init__(self, config: SceneConfig) -> None:
        self._config = config
        self._lamp = _lamp_light(config) if config.light == "night" else None
        sigma = config.noise_sigma * (2.0 if config.light == "night" else 1.0)
        rng = np.random.default_rng([config.seed, 99])
        shape = (config.height + _BANK_MARGIN_PX, config.width + _BANK_MARGIN_PX, 3)
        self._bank = (rng.normal(0.0, sigma, shape) * _NOISE_UNIT).round().astype(np.int16) if sigma else None

    def lit(self, image: Image, rows: slice = slice(None), columns: slice = slice(None)) -> Image:
        """Apply the light of this scene to a picture, or to the part of a picture at the given rows and columns."""
        if self._lamp is None:
            return image
        lamp = np.ascontiguousarray(self._lamp[rows, columns])
        return cv2.multiply(image, lamp, dtype=cv2.CV_8U).astype(np.uint8, copy=False)

    def finish(self, image: Image, index: int) -> Image:
        """Return a picture with rain and then sensor noise added to it."""
        rng = np.random.default_rng([self._config.seed, 13, index])
        if self._config.rain:
            image = self._rained(image, rng)
        if self._bank is None:
            return image
        top, left = (int(v) for v in rng.integers(_BANK_MARGIN_PX, size=2))
        window = self._bank[top : top + image.shape[0], left : left + image.shape[1]]
        add = cv2.add if rng.random() < 0.5 else cv2.subtract
        scale = 1.0 / (_NOISE_UNIT * _GAIN_UNIT)
        noise = cv2.multiply(cv2.LUT(image, _GAIN), window, scale=scale)  # of two int16 arrays: three times as fast
        return add(image, noise, dtype=cv2.CV_8U).astype(np.uint8, copy=False)

    def _rained(self, image: Image, rng: np.random.Generator) -> Image:
        height, width = image.shape[:2]
        layer = np.zeros((height, width), np.uint8)
        count = int(_STREAKS_PER_MEGAPIXEL * width * height / 1e6)
        starts = rng.integers((0, 0), (width, height), (count, 2))
        lengths = rng.integers(8, 20, count)
        for (x, y), length in zip(starts.tolist(), lengths.tolist(), strict=True):
            cv2.line(layer, (x, y), (x - length // 5, y + length), 62, 1)
        dimmed = cv2.convertScaleAbs(image, alpha=_RAIN_DIM)
        return cv2.add(dimmed, cv2.cvtColor(layer, cv2.COLOR_GRAY2BGR)).astype(np.uint8, copy=False)


def _lamp_light(config: SceneConfig) -> npt.NDArray[np.float32]:
    """Return the light of two street lamps at night, ``(height, width, 3)``, as shares of daylight."""
    ys, xs = np.mgrid[0 : config.height, 0 : config.width].astype(np.float32)
    pools = np.zeros((config.height, config.width), np.float32)
    for x, y in ((0.25, 0.5), (0.75, 0.6)):
        distance = ((xs / config.width - x) / 0.26) ** 2 + ((ys / config.height - y) / 0.4) ** 2
        pools += np.exp(-distance)
    warm = np.array([0.22, 0.34, 0.40], np.float32)
    return (_NIGHT + pools[..., None] * warm).astype(np.float32)
