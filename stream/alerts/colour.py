"""The colours of an object, as names that a person would use. Pure.

The light of the picture is estimated from all its pixels: its colour by the Shades of Gray method with the norm 6
(Finlayson and Trezzi, Shades of Gray and Colour Constancy, 2004), its strength by the bright pixels. After the light
is corrected, the pixels of the object are named by lightness, chroma and hue angle in CIE Lab.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ingest.contract.records import Box
from ingest.contract.records.event import COLOURS

SECOND_SHARE = 0.25
"""Minimum weighted share of the object's pixels at which a second colour is named, such as that of trousers below a
jacket."""
_SIDE_PX = 48
"""Side in pixels of the square to which the object's crop is scaled. Scaling down averages noise out, and a large
object takes no longer than a small one."""
_GAINS = 0.6, 1.8
"""Limits of the factor that corrects the light in one colour channel. A larger factor would turn a picture of one
colour to grey."""
_BRIGHT = 190.0
"""Grey value to which the 95th percentile of the picture is brought."""
_EXPOSURES = 0.7, 5.5
_GREY_CHROMA = 13.0
"""Chroma in CIE Lab below which a pixel has no colour: twice the chroma that noise and JPEG give a grey surface."""
_CHROMATIC_WEIGHT = 2.0
"""Factor by which coloured pixels count more than black, grey and white pixels: windows, tyres, shadows and the
background are rarely coloured, and a person names the paint."""
_HUES = (
    (18.0, "pink_or_red"), (46.0, "red"), (76.0, "orange"), (107.0, "yellow"), (195.0, "green"), (303.0, "blue"),
    (335.0, "purple"), (361.0, "pink_or_red"),
)  # fmt: skip
"""Upper ends of the hue angles in degrees of each colour. sRGB red has 40°, orange 66°, yellow 103°, green 136°, blue
306°."""


def colours_of(image: npt.NDArray[np.uint8], box: Box) -> tuple[str, ...]:
    """Return the name of the main colour of the object in a box of a BGR picture, and of a second colour if its
    weighted share is at least ``SECOND_SHARE``.

    Return an empty tuple if the part of the box within the picture is less than 4 pixels wide or high.
    """
    height, width = image.shape[:2]
    left, right = max(0, round(box[0])), min(width, round(box[2]))
    top, bottom = max(0, round(box[1])), min(height, round(box[3]))
    if right - left < 4 or bottom - top < 4:
        return ()
    crop = cv2.resize(image[top:bottom, left:right], (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA)
    lit = np.clip(crop.astype(np.float32) * _gains(image), 0.0, 255.0) / np.float32(255.0)
    names = _names(cv2.cvtColor(lit, cv2.COLOR_BGR2LAB).astype(np.float64))
    weights = _centre_weights()
    shares = np.array([weights[names == number].sum() for number in range(len(COLOURS))])
    shares[3:] *= _CHROMATIC_WEIGHT
    shares /= shares.sum()
    first, second = np.argsort(-shares, kind="stable")[:2]
    found = (first, second) if shares[second] >= SECOND_SHARE else (first,)
    return tuple(COLOURS[number] for number in found)


def _gains(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the factors of the blue, green and red channels that give the picture a white light of normal
    strength."""
    small = cv2.resize(image, (64, 36), interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float64)
    usable = small[(small.max(axis=1) < 250.0)]
    if len(usable) < len(small) // 10:
        return np.ones(3, np.float32)
    light = np.maximum((usable**6).mean(axis=0) ** (1 / 6), 1.0)
    balance = np.clip(light.mean() / light, *_GAINS)
    bright = max(1.0, float(np.percentile((small * balance).mean(axis=1), 95.0)))
    return np.asarray(balance * np.clip(_BRIGHT / bright, *_EXPOSURES), np.float32)


def _names(lab: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return for each pixel of a Lab picture the index of its colour in ``COLOURS``."""
    light, a, b = lab[..., 0], lab[..., 1], lab[..., 2]
    chroma, hue = np.hypot(a, b), np.degrees(np.arctan2(b, a)) % 360.0
    name = np.full(light.shape, "grey", "<U12")
    below = np.full(light.shape, True)
    for end, colour in _HUES:
        name[below & (hue < end)] = colour
        below &= hue >= end
    pinkish = name == "pink_or_red"
    name[pinkish] = np.where((light > 58.0)[pinkish], "pink", np.where((hue > 335.0)[pinkish], "purple", "red"))
    name[(name == "red") & (light > 68.0)] = "pink"
    name[np.isin(name, ("orange", "red")) & (hue > 30.0) & (light < 48.0) & (chroma < 55.0)] = "brown"
    grey = chroma < _GREY_CHROMA
    dark = (light < 20.0) & (chroma < 20.0)
    name[grey] = np.where((light > 74.0)[grey], "white", np.where((light < 30.0)[grey], "black", "grey"))
    name[dark] = "black"
    numbers = np.zeros(light.shape, np.int64)
    for number, colour in enumerate(COLOURS):
        numbers[name == colour] = number
    return numbers


def _centre_weights() -> npt.NDArray[np.float64]:
    """Return the weight of each pixel of the crop: the middle of the crop shows mostly the object, and the corners
    the background."""
    at = np.linspace(-1.0, 1.0, _SIDE_PX)
    return np.exp(-2.0 * (at[None, :] ** 2 + at[:, None] ** 2))
