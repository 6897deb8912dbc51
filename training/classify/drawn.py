"""Draw pictures of cats and dogs, the data of the tutorial. The same seed gives the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

LABELS = ("cat", "dog")
_CANVAS_PX = 128
"""Width and height in px at which pictures are drawn, before they are scaled down to smooth their edges."""


class DrawnAnimal(NamedTuple):
    """A drawn picture ``(size, size, 3)`` uint8 BGR."""

    label: str
    number: int
    image: npt.NDArray[np.uint8]


def animals(pictures: int, size: int, grey: bool, seed: int) -> Iterator[DrawnAnimal]:
    """Yield ``pictures`` pictures of each label, ``size`` px wide and high."""
    for index, label in enumerate(LABELS):
        for number in range(pictures):
            image = _picture(label, np.random.default_rng([seed, index, number]))
            small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
            if grey:
                small = cv2.cvtColor(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
            yield DrawnAnimal(label, number, np.asarray(small, np.uint8))


def _picture(label: str, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Draw a head with ears, eyes, nose and mouth on a background, then turn, scale and blur the picture, and add
    noise."""
    back = random.uniform(40, 215, 3)
    image = np.full((_CANVAS_PX, _CANVAS_PX, 3), back, np.uint8)
    for _ in range(4):  # things in the background
        at = tuple(int(v) for v in random.integers(0, _CANVAS_PX, 2))
        cv2.circle(image, at, int(random.integers(5, 25)), tuple(back + random.uniform(-35, 35, 3)), -1)
    fur = np.clip(random.uniform(30, 225) + random.uniform(-25, 25, 3), 0, 255)
    if abs(fur.mean() - back.mean()) < 45:
        fur = np.clip(fur + (70 if back.mean() < 128 else -70), 0, 255)
    (_cat if label == "cat" else _dog)(image, tuple(fur), tuple(fur * 0.55), random)
    turn = cv2.getRotationMatrix2D((64, 64), float(random.uniform(-20, 20)), float(random.uniform(0.6, 1.05)))
    turn = turn + [[0.0, 0.0, shift] for shift in random.uniform(-14, 14, 2)]
    turned = cv2.warpAffine(image, turn, (_CANVAS_PX, _CANVAS_PX), borderMode=cv2.BORDER_REFLECT_101)
    blurred = cv2.GaussianBlur(turned, (0, 0), float(random.uniform(0.5, 2.5)))
    noise = random.normal(0, random.uniform(4, 22), blurred.shape)
    return np.asarray(np.clip(blurred + noise, 0, 255), np.uint8)


def _cat(
    image: npt.NDArray[np.uint8], fur: tuple[float, ...], dark: tuple[float, ...], random: np.random.Generator
) -> None:
    """Draw a round head with pointed ears, slit eyes and whiskers."""
    height = int(random.integers(26, 44))
    for side in (-1, 1):
        tip, base = (64 + side * int(random.integers(28, 38)), 48 - height), int(random.integers(8, 14))
        corners = np.array([tip, (64 + side * 36, 58), (64 + side * base, 36)], np.int32)
        cv2.fillPoly(image, [corners], fur)
    cv2.ellipse(image, (64, 68), (int(random.integers(33, 41)), int(random.integers(28, 35))), 0, 0, 360, fur, -1)
    for side in (-1, 1):
        cv2.ellipse(image, (64 + side * 15, 62), (6, 8), 0, 0, 360, (230, 240, 230), -1)
        cv2.ellipse(image, (64 + side * 15, 62), (2, 8), 0, 0, 360, (10, 10, 10), -1)
        for lift in (-6, 0, 6):
            cv2.line(image, (64 + side * 10, 78), (64 + side * 46, 78 + lift), dark, 1)
    cv2.fillPoly(image, [np.array([(59, 73), (69, 73), (64, 79)], np.int32)], dark)


def _dog(
    image: npt.NDArray[np.uint8], fur: tuple[float, ...], dark: tuple[float, ...], random: np.random.Generator
) -> None:
    """Draw a long head with hanging ears, round eyes and a snout, sometimes with a tongue."""
    cv2.ellipse(image, (64, 62), (int(random.integers(27, 34)), int(random.integers(32, 40))), 0, 0, 360, fur, -1)
    length, drop = int(random.integers(20, 32)), int(random.integers(52, 68))
    for side in (-1, 1):
        cv2.ellipse(image, (64 + side * 34, drop), (10, length), side * -12, 0, 360, dark, -1)
        cv2.circle(image, (64 + side * 13, 54), 5, (15, 15, 15), -1)
    cv2.ellipse(image, (64, 82), (17, 14), 0, 0, 360, tuple(min(255.0, v + 25) for v in fur), -1)
    if random.random() < 0.5:
        cv2.ellipse(image, (64, 97), (6, 11), 0, 0, 360, (110, 110, 220), -1)
    cv2.ellipse(image, (64, 76), (8, 6), 0, 0, 360, (15, 15, 15), -1)
