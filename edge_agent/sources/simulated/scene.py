"""Renderer of simulated scenes: make the picture and the ground truth of any frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.sources.simulated import sprites
from edge_agent.sources.simulated.actors import Actor, SimulatedCrossing, crossings_between, present
from edge_agent.sources.simulated.background import background
from edge_agent.sources.simulated.config import BASE_HEIGHT_PX, BASE_WIDTH_PX, SceneConfig
from edge_agent.sources.simulated.weather import Weather

_MIN_VISIBLE = 0.25
"""Minimum share of an object's area that must be visible for the ground truth to list the object."""


@dataclass(frozen=True, slots=True)
class SceneObject:
    """Object that is visible in a frame. ``box`` is left, top, right, bottom in px, clipped to the picture."""

    id: int
    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Rendered:
    """Rendered picture ``(height, width, 3)`` uint8 BGR, visible objects, and line crossings since the previous
    frame.
    """

    index: int
    image: npt.NDArray[np.uint8]
    objects: tuple[SceneObject, ...]
    crossings: tuple[SimulatedCrossing, ...]


class SimulatedScene:
    """Renderer of one scene. A frame depends only on its index, so frames may be rendered in any order."""

    def __init__(self, config: SceneConfig) -> None:
        self.config = config
        self._weather = Weather(config)
        self._empty = self._weather.lit(background(config))
        self._scale = config.width / BASE_WIDTH_PX, config.height / BASE_HEIGHT_PX

    def render(self, index: int) -> Rendered:
        """Return the frame with the given index, counted from 0."""
        at_s = index / self.config.fps
        image = self._empty.copy()
        objects = []
        for actor in sorted(
            present(self.config, at_s), key=lambda a: a.centre(at_s)[1]
        ):  # nearer actors are drawn last
            seen = self._paint(image, actor, at_s)
            if seen is not None:
                objects.append(seen)
        crossings = crossings_between(self.config, (index - 1) / self.config.fps, at_s)
        return Rendered(index, self._weather.finish(image, index), tuple(objects), tuple(crossings))

    def _paint(self, image: npt.NDArray[np.uint8], actor: Actor, at_s: float) -> SceneObject | None:
        picture, mask = sprites.sprite(actor, at_s)
        if self._scale != (1.0, 1.0):
            picture, mask = _resized(picture, mask, self._scale)
        x, y = actor.centre(at_s)
        height, width = mask.shape
        left = round(x * self._scale[0] - width / 2)
        top = round(y * self._scale[1] - height / 2)
        rows = slice(max(0, top), min(image.shape[0], top + height))
        columns = slice(max(0, left), min(image.shape[1], left + width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        part = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        lit = self._weather.lit(np.ascontiguousarray(picture[part]), rows, columns)
        cv2.copyTo(lit, mask[part], image[rows, columns])
        visible = (rows.stop - rows.start) * (columns.stop - columns.start) / (width * height)
        if visible < _MIN_VISIBLE:
            return None
        box = (float(columns.start), float(rows.start), float(columns.stop), float(rows.stop))
        return SceneObject(actor.id, actor.label, box)


def _resized(
    picture: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], scale: tuple[float, float]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    size = max(2, round(mask.shape[1] * scale[0])), max(2, round(mask.shape[0] * scale[1]))
    return (
        cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8),
        cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST).astype(np.uint8),
    )
