"""Static background of a scene: road, yard or conveyor belt.

Pure. The background is drawn once for each scene, at 640×360 px.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.sources.simulated.config import BASE_HEIGHT_PX, BASE_WIDTH_PX, RESTRICTED_ZONE, SceneConfig

Image = npt.NDArray[np.uint8]
_WHITE = (205, 210, 212)


def background(config: SceneConfig) -> Image:
    """Return the empty scene in daylight, ``(height, width, 3)`` BGR, without noise."""
    rng = np.random.default_rng([config.seed, 77])
    image = {"road": _road, "yard": _yard, "conveyor": _conveyor}[config.kind](rng)
    size = (config.width, config.height)
    return (
        image
        if image.shape[1::-1] == size
        else cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    )


def _texture(rng: np.random.Generator, colour: tuple[int, int, int], grain: float) -> Image:
    """Return a texture of fine grain on coarse patches.

    The grain is detail that a denoiser must preserve.
    """
    fine = rng.normal(0.0, grain, (BASE_HEIGHT_PX, BASE_WIDTH_PX, 1))
    coarse = cv2.resize(
        rng.normal(0.0, grain, (12, 20)), (BASE_WIDTH_PX, BASE_HEIGHT_PX), interpolation=cv2.INTER_CUBIC
    )
    return np.clip(np.array(colour) + fine + coarse[..., None], 0, 255).astype(np.uint8)


def _road(rng: np.random.Generator) -> Image:
    image = _texture(rng, (62, 98, 72), 7.0)
    asphalt = _texture(rng, (88, 86, 84), 4.0)
    image[112:352] = asphalt[112:352]
    for y in (116, 348):
        cv2.line(image, (0, y), (BASE_WIDTH_PX, y), _WHITE, 3)
    cv2.line(image, (0, 233), (BASE_WIDTH_PX, 233), _WHITE, 2)
    cv2.line(image, (0, 238), (BASE_WIDTH_PX, 238), _WHITE, 2)
    for x in range(10, BASE_WIDTH_PX, 70):
        for y in (180, 291):
            cv2.line(image, (x, y), (x + 34, y), _WHITE, 2)
    for x in range(-10, BASE_WIDTH_PX, 46):
        cv2.circle(image, (x + 12, 66), int(rng.integers(20, 30)), (38, 80 + int(rng.integers(20)), 52), -1)
    cv2.rectangle(image, (0, 96), (BASE_WIDTH_PX, 100), (140, 140, 138), -1)
    return image


def _yard(rng: np.random.Generator) -> Image:
    image = _texture(rng, (118, 126, 130), 4.0)
    for x in range(0, BASE_WIDTH_PX, 64):
        cv2.line(image, (x, 88), (x - 60, BASE_HEIGHT_PX), (104, 111, 115), 1)
    for y in range(96, BASE_HEIGHT_PX, 44):
        cv2.line(image, (0, y), (BASE_WIDTH_PX, y), (104, 111, 115), 1)
    image[:72] = _texture(rng, (96, 108, 128), 5.0)[:72]
    for x in range(30, BASE_WIDTH_PX, 120):
        cv2.rectangle(image, (x, 14), (x + 62, 50), (94, 74, 58), -1)
        cv2.rectangle(image, (x, 14), (x + 62, 50), (170, 174, 176), 2)
    cv2.rectangle(image, (0, 70), (BASE_WIDTH_PX, 76), (70, 74, 78), -1)
    _fence(image, 56, 90)
    corners = np.array([(x * BASE_WIDTH_PX, y * BASE_HEIGHT_PX) for x, y in RESTRICTED_ZONE], np.int32)
    hatched = image.copy()
    for x in range(0, BASE_WIDTH_PX * 2, 22):
        cv2.line(hatched, (x, 0), (x - BASE_HEIGHT_PX, BASE_HEIGHT_PX), (60, 180, 215), 4)
    inside = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(inside, [corners], 255)
    image[inside > 0] = (image[inside > 0] * 0.72 + hatched[inside > 0] * 0.28).astype(np.uint8)
    cv2.polylines(image, [corners], True, (50, 170, 210), 3)
    return image


def _fence(image: Image, top: int, bottom: int) -> None:
    """Draw a wire mesh between posts across the picture."""
    wire, post = (88, 92, 94), (58, 62, 64)
    for x in range(-bottom, BASE_WIDTH_PX + bottom, 8):
        cv2.line(image, (x, top), (x + bottom - top, bottom), wire, 1)
        cv2.line(image, (x, bottom), (x + bottom - top, top), wire, 1)
    for x in range(8, BASE_WIDTH_PX, 78):
        cv2.rectangle(image, (x, top - 5), (x + 3, bottom + 2), post, -1)
    for y in (top, bottom):
        cv2.line(image, (0, y), (BASE_WIDTH_PX, y), post, 2)


def _conveyor(rng: np.random.Generator) -> Image:
    image = _texture(rng, (92, 96, 92), 4.0)
    image[108:252] = _texture(rng, (58, 66, 62), 2.5)[108:252]
    for y in (104, 252):
        cv2.rectangle(image, (0, y - 6), (BASE_WIDTH_PX, y + 6), (150, 155, 160), -1)
        for x in range(20, BASE_WIDTH_PX, 80):
            cv2.circle(image, (x, y), 4, (80, 84, 88), -1)
    cv2.rectangle(image, (370, 20), (398, 100), (60, 70, 150), -1)
    cv2.rectangle(image, (374, 92), (394, 104), (40, 40, 44), -1)
    return image
