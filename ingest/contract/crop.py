"""Fit a part of a frame into a model's input. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from ingest.contract.records import Box, Fit, Inner, Region


class InputShape(Protocol):
    """The size of a model's input in pixels, and the method of fitting a picture to this size."""

    @property
    def width(self) -> int:
        """Width in pixels."""

    @property
    def height(self) -> int:
        """Height in pixels."""

    @property
    def fit(self) -> Literal["stretch", "letterbox", "crop"]:
        """Method of fitting a picture into the input.

        ``stretch`` distorts the picture, ``letterbox`` pads the picture, and ``crop`` cuts off its longer side at
        both ends.
        """


@dataclass(frozen=True, slots=True)
class CropWindow:
    """A part of a frame to crop for the model.

    ``region.box`` is the tight box of the motion or object, in pixels of the frame. ``left, top, right, bottom`` are
    the edges of the crop around ``region.box``, in whole pixels of the frame. ``region.fit`` and ``region.inner`` map
    the crop to the input of the model.
    """

    region: Region
    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def of(cls, region: Region, size: tuple[int, int]) -> CropWindow:
        """Return the window that ``crop_window`` made for a region of a frame of ``size`` (width and height).

        ``region.fit`` maps the window to ``region.inner``, so the window need not be sent. Raise ValueError if the
        window is empty or not inside the frame.
        """
        scale_x, scale_y, *_ = region.fit
        edges = region.fit.to_frame(Box(*region.inner)) if scale_x and scale_y else Box(0.0, 0.0, 0.0, 0.0)
        left, top, right, bottom = map(round, edges) if all(map(math.isfinite, edges)) else (0, 0, 0, 0)
        if not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
            raise ValueError(
                f"{region.fit} maps {edges} to the model's input: expected a part of {size[0]}×{size[1]}"
            )
        return cls(region, left, top, right, bottom)


def crop_window(model: InputShape, box: Box, around: Box, size: tuple[int, int]) -> CropWindow:
    """Return the window to crop from a frame so that the model's input shows the box ``around``.

    ``size`` is the frame's width and height in pixels. The box ``around`` must lie inside the frame and have an area
    above 0. With the fit ``crop``, the window has the aspect ratio of the model's input. The returned window keeps
    ``box`` as its ``region.box``.
    """
    if model.fit == "crop":
        around = _cropped(around, size, model.width / model.height)
    left, top = math.floor(around.left), math.floor(around.top)
    right, bottom = math.ceil(around.right), math.ceil(around.bottom)
    width, height = right - left, bottom - top
    inner = Inner(0, 0, model.width, model.height)
    if model.fit == "letterbox":
        inner = _letterboxed(width, height, model.width, model.height)
    scale_x, scale_y = (inner.right - inner.left) / width, (inner.bottom - inner.top) / height
    fit = Fit(scale_x, scale_y, inner.left - left * scale_x, inner.top - top * scale_y)
    return CropWindow(Region(box, fit, inner), left, top, right, bottom)


def _cropped(around: Box, size: tuple[int, int], aspect: float) -> Box:
    """Return a box with the aspect ratio of the model's input (width ÷ height) and the centre of ``around``.

    The side of ``around`` that is too short for the aspect ratio grows, at most to the size of the frame. If the
    frame is too small, the other side of ``around`` is cut at both ends until the aspect ratio is right.
    """
    width = min(max(around.width, around.height * aspect), float(size[0]))
    height = min(max(around.height, around.width / aspect), float(size[1]))
    wide, high = max(1, round(min(width, height * aspect))), max(1, round(min(height, width / aspect)))
    x, y = around.centre
    left = min(max(round(x - wide / 2), 0), size[0] - wide)
    top = min(max(round(y - high / 2), 0), size[1] - high)
    return Box(float(left), float(top), float(left + wide), float(top + high))


def _letterboxed(width: int, height: int, wide: int, high: int) -> Inner:
    """Return the largest rectangle with the region's aspect ratio, centred in the input of the model."""
    scale = min(wide / width, high / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (wide - w) // 2, (high - h) // 2
    return Inner(left, top, left + w, top + h)
