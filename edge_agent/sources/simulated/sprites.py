"""Pictures and masks of actors, cached after the first drawing.

Pure. All sizes are in px of a picture of 640×360 px.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.sources.simulated.actors import SIZES_PX, Actor

Image = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
Sprite = tuple[Image, Image]
"""Picture ``(height, width, 3)`` BGR and mask ``(height, width)`` of an actor; the mask is 255 inside the actor."""

_PAINT: tuple[Colour, ...] = (
    (40, 40, 190), (170, 90, 30), (225, 225, 225), (60, 60, 62), (150, 152, 155), (45, 120, 60), (30, 150, 210),
)  # fmt: skip
_CLOTHES: tuple[Colour, ...] = (
    (60, 60, 170),
    (140, 70, 40),
    (60, 110, 60),
    (50, 50, 55),
    (170, 160, 60),
    (40, 110, 190),
)
_GAIT_STEPS = 8
"""Number of different pictures of a person in one walking cycle. At 10 frames/s, more pictures would make no visible
difference."""


def sprite(actor: Actor, at_s: float) -> Sprite:
    """Return an actor's picture and mask at a time, cropped to the mask."""
    phase = int(at_s * 2 * _GAIT_STEPS) % _GAIT_STEPS if actor.label == "person" else 0
    return _sprite(actor.label, actor.look, phase, actor.rightwards)


@lru_cache(maxsize=512)
def _sprite(label: str, look: int, phase: int, rightwards: bool) -> Sprite:
    width, height = SIZES_PX[label]
    rng = np.random.default_rng(look)
    image, mask = _DRAW[label](width, height, rng, phase)
    if not rightwards:
        image, mask = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    left, top, width, height = cv2.boundingRect(mask)
    cut = np.s_[top : top + height, left : left + width]
    return np.ascontiguousarray(image[cut]), np.ascontiguousarray(mask[cut])


def _canvas(width: int, height: int) -> tuple[Image, Image]:
    return np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)


def _rounded(mask: Image, left: int, top: int, right: int, bottom: int, radius: int) -> None:
    cv2.rectangle(mask, (left + radius, top), (right - radius, bottom), 255, -1)
    cv2.rectangle(mask, (left, top + radius), (right, bottom - radius), 255, -1)
    for x in (left + radius, right - radius):
        for y in (top + radius, bottom - radius):
            cv2.circle(mask, (x, y), radius, 255, -1)


def _shade(image: Image) -> Image:
    """Return the picture lit from above: each row is slightly darker than the previous one."""
    ramp = np.linspace(1.12, 0.78, image.shape[0], dtype=np.float32)[:, None, None]
    shaded: Image = np.clip(image * ramp, 0, 255).astype(np.uint8)
    return shaded


def _paint(rng: np.random.Generator) -> Colour:
    base = np.array(_PAINT[int(rng.integers(len(_PAINT)))]) + rng.integers(-18, 19, 3)
    b, g, r = (int(c) for c in np.clip(base, 15, 240))
    return b, g, r


def _car(width: int, height: int, rng: np.random.Generator, phase: int) -> Sprite:
    image, mask = _canvas(width, height)
    colour = _paint(rng)
    _rounded(mask, 0, 0, width - 1, height - 1, 12)
    image[:] = colour
    glass = (58, 48, 42)
    cabin = np.array([(26, 6), (62, 6), (62, height - 7), (26, height - 7)])
    cv2.fillConvexPoly(image, cabin, tuple(int(c * 0.92) for c in colour))
    cv2.fillConvexPoly(image, np.array([(62, 7), (74, 4), (74, height - 5), (62, height - 8)]), glass)
    cv2.fillConvexPoly(image, np.array([(26, 7), (17, 4), (17, height - 5), (26, height - 8)]), glass)
    cv2.line(image, (28, 4), (60, 4), glass, 2)
    cv2.line(image, (28, height - 5), (60, height - 5), glass, 2)
    _lamps(image, width, height)
    return _shade(image), mask


def _lamps(image: Image, width: int, height: int) -> None:
    for y in (6, height - 7):
        cv2.circle(image, (width - 4, y), 3, (200, 240, 250), -1)
        cv2.circle(image, (3, y), 2, (30, 30, 200), -1)


def _truck(width: int, height: int, rng: np.random.Generator, phase: int) -> Sprite:
    image, mask = _canvas(width, height)
    cv2.rectangle(mask, (0, 0), (108, height - 1), 255, -1)
    _rounded(mask, 112, 3, width - 1, height - 4, 6)
    cv2.rectangle(mask, (106, height // 2 - 5), (114, height // 2 + 5), 255, -1)
    shade = int(rng.integers(165, 225))
    image[:, :110] = (shade, shade, shade + 5)
    for x in range(8, 108, 14):
        cv2.line(image, (x, 0), (x, height), (shade - 35,) * 3, 1)
    image[:, 110:] = _paint(rng)
    cv2.rectangle(image, (134, 8), (141, height - 9), (58, 48, 42), -1)
    _lamps(image, width, height)
    return _shade(image), mask


def _bus(width: int, height: int, rng: np.random.Generator, phase: int) -> Sprite:
    image, mask = _canvas(width, height)
    _rounded(mask, 0, 0, width - 1, height - 1, 5)
    image[:] = ((40, 170, 225), (60, 60, 190), (190, 120, 40))[int(rng.integers(3))]
    cv2.rectangle(image, (0, height // 2 - 9), (width, height // 2 + 9), (235, 235, 235), -1)
    for x in range(8, width - 22, 18):
        for y in (3, height - 9):
            cv2.rectangle(image, (x, y), (x + 13, y + 6), (58, 48, 42), -1)
    cv2.rectangle(image, (width - 10, 6), (width - 5, height - 7), (58, 48, 42), -1)
    _lamps(image, width, height)
    return _shade(image), mask


def _motorcycle(width: int, height: int, rng: np.random.Generator, phase: int) -> Sprite:
    image, mask = _canvas(width, height)
    middle = height // 2
    cv2.ellipse(mask, (width // 2, middle), (width // 2, 5), 0, 0, 360, 255, -1)
    cv2.ellipse(mask, (width // 2 - 4, middle), (12, middle), 0, 0, 360, 255, -1)
    image[:] = (35, 35, 38)
    cv2.ellipse(image, (width // 2 - 4, middle), (11, middle - 1), 0, 0, 360, _paint(rng), -1)
    cv2.circle(image, (width // 2 - 1, middle), 6, (225, 225, 230), -1)
    cv2.line(image, (width - 14, 3), (width - 14, height - 4), (90, 90, 95), 2)
    mask[:, width - 15 : width - 12] = 255
    return image, mask


def _person(width: int, height: int, rng: np.random.Generator, phase: int) -> Sprite:
    image, mask = _canvas(width, height)
    shirt, trousers = (_CLOTHES[int(i)] for i in rng.choice(len(_CLOTHES), 2, replace=False))
    skin = (110 + int(rng.integers(40)), 150, 190)
    swing = round(8 * math.sin(2 * math.pi * phase / _GAIT_STEPS))
    middle = width // 2
    limbs = (
        ((middle, 42), (middle + swing, height - 3), trousers, 7),
        ((middle, 42), (middle - swing, height - 3), trousers, 7),
        ((middle - 8, 20), (middle - 9 - swing // 2, 40), shirt, 5),
        ((middle + 8, 20), (middle + 9 + swing // 2, 40), shirt, 5),
    )
    for start, end, colour, thickness in limbs:
        cv2.line(image, start, end, colour, thickness)
        cv2.line(mask, start, end, 255, thickness)
    for layer, colours in ((image, (shirt, skin)), (mask, ((255,), (255,)))):
        cv2.ellipse(layer, (middle, 30), (9, 16), 0, 0, 360, colours[0], -1)
        cv2.circle(layer, (middle, 8), 8, colours[1], -1)
    cv2.ellipse(image, (middle, 5), (8, 5), 0, 180, 360, (30, 35, 45), -1)
    return image, mask


def _part(width: int, height: int, rng: np.random.Generator, phase: int) -> Sprite:
    image, mask = _canvas(width, height)
    centre, radius = (width // 2, height // 2), width // 2 - 1
    cv2.circle(mask, centre, radius, 255, -1)
    grey = int(rng.integers(165, 190))
    cv2.circle(image, centre, radius, (grey, grey, grey - 8), -1)
    cv2.circle(image, centre, radius - 3, (grey + 25, grey + 25, grey + 18), 2)
    cv2.circle(image, centre, 9, (52, 52, 52), -1)
    turn = rng.uniform(0, np.pi / 3)
    for k in range(6):
        angle = turn + k * np.pi / 3
        hole = int(centre[0] + 19 * np.cos(angle)), int(centre[1] + 19 * np.sin(angle))
        cv2.circle(image, hole, 4, (60, 60, 60), -1)
    return _shade(image), mask


def _faulty(width: int, height: int, rng: np.random.Generator, phase: int) -> Sprite:
    image, mask = _part(width, height, rng, phase)
    centre = width // 2, height // 2
    match int(rng.integers(3)):
        case 0:  # a crack
            points = np.cumsum(np.vstack([[(12, 8)], rng.integers((2, 5), (9, 11), (5, 2))]), axis=0).astype(np.int32)
            cv2.polylines(image, [points], False, (25, 25, 30), 3)
        case 1:  # no bore in the middle
            cv2.circle(image, centre, 12, (186, 186, 178), -1)
        case _:  # burnt: another colour
            tinted = cv2.addWeighted(image, 0.55, np.full_like(image, (20, 60, 120)), 0.45, 0)
            image = tinted.astype(np.uint8)
    return image, mask


_DRAW: dict[str, Callable[[int, int, np.random.Generator, int], Sprite]] = {
    "car": _car,
    "truck": _truck,
    "bus": _bus,
    "motorcycle": _motorcycle,
    "person": _person,
    "part_good": _part,
    "part_faulty": _faulty,
}
