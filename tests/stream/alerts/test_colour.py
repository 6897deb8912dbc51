"""Tests of the colours of objects, on rendered crops under several lights."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from ingest.contract.records import Box
from ingest.contract.records.event import COLOURS
from stream.alerts.colour import colours_of

PAINT = {
    "black": (22, 22, 24),
    "grey": (122, 124, 126),
    "white": (238, 238, 236),
    "red": (186, 24, 28),
    "orange": (240, 120, 10),
    "brown": (98, 60, 32),
    "yellow": (240, 205, 20),
    "green": (28, 130, 50),
    "blue": (28, 62, 170),
    "purple": (110, 35, 140),
    "pink": (240, 140, 175),
}
"""Typical sRGB values of each colour in daylight."""
LIGHTS = {
    "daylight": (1.0, 1.0, 1.0),
    "overcast": (0.62, 0.66, 0.72),
    "lamp": (0.95, 0.78, 0.55),
    "dusk": (0.30, 0.33, 0.40),
    "night": (0.22, 0.20, 0.17),
    "bright": (1.15, 1.12, 1.08),
}
"""Factors of red, green and blue."""
NOISE = np.random.default_rng(7).normal(0.0, 5.0, (360, 640, 3))
BOX = Box(200.0, 120.0, 360.0, 220.0)


def scene(paint: tuple[int, int, int], light: tuple[float, float, float]) -> npt.NDArray[np.uint8]:
    """Render a car with windows and tyres on a road with kerbs and a verge, as a camera encodes it."""
    rgb = np.full((360, 640, 3), (112, 112, 110), np.float64)
    rgb[:60] = (70, 105, 55)
    rgb[60:80] = rgb[300:312] = (205, 204, 200)
    cv2.ellipse(rgb, (280, 170), (80, 50), 0, 0, 360, paint, -1)
    cv2.rectangle(rgb, (245, 132), (315, 152), (38, 42, 46), -1)
    cv2.circle(rgb, (235, 212), 12, (25, 25, 25), -1)
    cv2.circle(rgb, (325, 212), 12, (25, 25, 25), -1)
    rgb = rgb * (0.85 + 0.3 * np.linspace(0.0, 1.0, 640)[None, :, None]) + NOISE
    lit = np.clip(rgb * light, 0.0, 255.0).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", lit[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)


@pytest.mark.parametrize("light", LIGHTS)
def test_the_colour_of_a_car_is_named_the_same_in_any_light(light: str) -> None:
    found = {name: colours_of(scene(paint, LIGHTS[light]), BOX)[0] for name, paint in PAINT.items()}
    assert found == {name: name for name in PAINT}


def test_a_person_in_two_colours_has_both_colour_names() -> None:
    image = scene((112, 112, 110), LIGHTS["daylight"])
    image[120:170, 200:360] = PAINT["yellow"][::-1]
    image[170:220, 200:360] = PAINT["blue"][::-1]
    assert set(colours_of(image, BOX)) == {"yellow", "blue"}


def test_a_box_outside_of_the_picture_has_no_colour() -> None:
    image = scene(PAINT["red"], LIGHTS["daylight"])
    assert colours_of(image, Box(700.0, 10.0, 800.0, 90.0)) == ()
    assert colours_of(image, Box(10.0, 10.0, 12.0, 12.0)) == ()
    for value in (0, 255):
        assert colours_of(np.full((90, 90, 3), value, np.uint8), Box(0.0, 0.0, 90.0, 90.0))[0] in COLOURS
    assert colours_of(image, Box(-50.0, -20.0, 900.0, 900.0))[0] in COLOURS
