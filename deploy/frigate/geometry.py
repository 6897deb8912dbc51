"""Polygons and ground planes of a Frigate configuration, as shares of the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.frigate.section import FrigateSection

_METRES_PER_FOOT = 0.3048
Points = list[list[float]]


def polygons(section: FrigateSection, key: str, size: tuple[float, float]) -> list[Points]:
    """Return the polygons of a mask.

    Frigate writes a mask as one text, as a list of texts, or as a mapping from names to sections with
    ``coordinates``. A mask that is switched off is left out. ``size`` is the size of the picture in px.
    """
    found = section.value(key)
    if found is None or found == "":
        return []
    if isinstance(found, Mapping):
        masks = [mask for _, mask in section.section(key).sections() if mask.is_on()]
        return [polygon(mask, "coordinates", mask.value("coordinates"), size) for mask in masks]
    return [polygon(section, key, mask, size) for mask in (found if isinstance(found, list) else [found])]


def polygon(section: FrigateSection, key: str, value: Any, size: tuple[float, float]) -> Points:
    """Return the corners of one polygon, written as ``x,y,x,y,…`` or as a list of such texts.

    Coordinates above 1 are pixels. Raise ConfigError if the value is no polygon, or if it is in pixels and the
    section ``detect`` has no size.
    """
    numbers = _numbers(section, key, value)
    if len(numbers) < 6 or len(numbers) % 2:
        raise section.error(key, value, "x,y,x,y,… with at least three corners")
    scale = (1.0, 1.0)
    if max(numbers) > 1.0:
        if not all(size):
            raise section.error(key, value, "coordinates from 0 to 1, because detect has no width and height")
        scale = size
    return [
        [round(min(max(part / whole, 0.0), 1.0), 4) for part, whole in zip(pair, scale, strict=True)]
        for pair in zip(numbers[::2], numbers[1::2], strict=True)
    ]


def ground(corners: Points, lengths: Sequence[float], *, imperial: bool) -> dict[str, Any] | None:
    """Return the ground plane of a zone with four corners, or None if the zone has another number of corners.

    ``lengths`` are the lengths of the edges from each corner to the next one, in metres, or in feet if ``imperial``.
    The edge that lies lowest in the picture is the near edge.
    """
    if len(corners) != 4 or len(lengths) != 4:
        return None
    edges = [(corners[n], corners[(n + 1) % 4], lengths[n]) for n in range(4)]
    near = max(range(4), key=lambda n: edges[n][0][1] + edges[n][1][1])
    runs_right = edges[near][0][0] <= edges[near][1][0]
    order = [(near + step) % 4 for step in range(4)] if runs_right else [(near + 1 - step) % 4 for step in range(4)]
    right = (near + 1) % 4 if runs_right else (near - 1) % 4
    unit = _METRES_PER_FOOT if imperial else 1.0
    return {
        "corners": [corners[n] for n in order],
        "width_m": round(lengths[near] * unit, 3),
        "length_m": round(lengths[right] * unit, 3),
    }


def lengths_of(section: FrigateSection, key: str) -> list[float]:
    """Return the lengths of a zone's edges, or an empty list. Raise ConfigError for a value that is no length."""
    value = section.value(key)
    if value is None or value == "":
        return []
    numbers = _numbers(section, key, value)
    if min(numbers) <= 0.0:
        raise section.error(key, value, "lengths above 0")
    return numbers


def _numbers(section: FrigateSection, key: str, value: Any) -> list[float]:
    texts = value if isinstance(value, list) else [value]
    try:
        numbers = [float(number) for text in texts for number in str(text).split(",")]
    except ValueError:
        raise section.error(key, value, "numbers separated by commas") from None
    if not all(0.0 <= number < 1e6 for number in numbers):
        raise section.error(key, value, "numbers from 0 to 1000000")
    return numbers
