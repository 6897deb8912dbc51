"""Choose the regions of a frame that a model examines, and fit each region into the model's input. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import cv2

from ingest.contract.records import Box, Fit, Inner, Pixels, Region
from ingest.site import PipelineConfig

MERGE_SHARE = 0.6
"""Minimum overlap, as a share of the smaller box, at which two moving regions are merged. Boxes that the agent's gate
sends for one object overlap more, and boxes of two objects that pass each other overlap less."""
BESIDE_SHARE = 0.1
"""Maximum share of a stationary box that lies inside a moving box, for the stationary box to be cropped too. With a
larger share, the object begins to move and would be detected twice, or another object hides it."""

MAX_BOXES = 128
"""Maximum number of boxes of one frame that are used: twice the maximum number of regions. The time to merge boxes is
quadratic in their number: 5 ms for 128 boxes, but half a day for the 400,000 boxes that fit into a record."""


@dataclass(frozen=True, slots=True)
class CropWindow:
    """A part of a frame to crop for the model.

    ``region.box`` is the tight box that the agent sent, in pixels of the frame. ``left, top, right, bottom`` are the
    edges of the crop around that box, in whole pixels. ``region.fit`` and ``region.inner`` map the crop to the input
    of the model.
    """

    region: Region
    left: int
    top: int
    right: int
    bottom: int


def windows(
    pipeline: PipelineConfig,
    size: tuple[int, int],
    motion: Sequence[Box] | None,
    most: int,
    resting: Sequence[Box] = (),
) -> tuple[CropWindow, ...]:
    """Return from one to ``most`` crop windows of a frame of ``size`` (width, height).

    Return the full frame unless the pipeline uses motion and the agent sent regions inside the frame. If there are
    more than ``most`` moving regions, keep the largest. Otherwise add stationary objects in the given order, except
    those inside a moving region. ``resting`` has the boxes of stationary objects, as ``usable`` returned them.
    """
    moving = merged(usable(motion or (), size)) if pipeline.regions == "motion" else []
    if not moving and (pipeline.regions != "motion" or motion != () or not resting):
        whole = Box(0.0, 0.0, float(size[0]), float(size[1]))
        return (_window(pipeline, whole, whole, size),)
    boxes = sorted(moving, key=attrgetter("area"), reverse=True)
    boxes += [box for box in resting if not any(box.shared(other) / box.area >= BESIDE_SHARE for other in moving)]
    margin = pipeline.region_margin
    return tuple(_window(pipeline, box, box.widened(margin).clipped(*size), size) for box in boxes[:most])


def merged(boxes: Sequence[Box]) -> list[Box]:
    """Merge boxes that overlap by at least ``MERGE_SHARE`` of the smaller box, until no two boxes overlap by as
    much."""
    left = list(boxes)
    done: list[Box] = []
    while left:
        box = left.pop()
        partner = next((other for other in done if box.overlap(other) >= MERGE_SHARE), None)
        if partner is None:
            done.append(box)
        else:
            done.remove(partner)
            left.append(box.union(partner))
    return done


def draw(pipeline: PipelineConfig, image: Pixels, window: CropWindow) -> Pixels:
    """Return the crop of a BGR image, contiguous, resized to ``region.inner`` and in the colours of the pipeline."""
    part = image[window.top : window.bottom, window.left : window.right]
    left, top, right, bottom = window.region.inner
    # Bilinear at every scale: models are trained with bilinear scaling, and area averaging costs ten times as much.
    drawn = cv2.resize(part, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    if pipeline.colour == "rgb":
        drawn = cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB, dst=drawn)
    return drawn  # type: ignore[return-value]  # the type in OpenCV is wider: uint8 input stays uint8


def usable(motion: Sequence[Box], size: tuple[int, int]) -> list[Box]:
    """Return the boxes clipped to a frame of ``size``.

    Drop boxes outside of the frame, and keep the largest ``MAX_BOXES``.
    """
    inside = (box.clipped(*size) for box in motion if all(map(math.isfinite, box)))
    found = [box for box in inside if box.width >= 1.0 and box.height >= 1.0]
    return found if len(found) <= MAX_BOXES else heapq.nlargest(MAX_BOXES, found, key=attrgetter("area"))


def _window(pipeline: PipelineConfig, box: Box, around: Box, size: tuple[int, int]) -> CropWindow:
    if pipeline.fit == "crop":
        around = _cropped(around, size, pipeline.width / pipeline.height)
    left, top = math.floor(around.left), math.floor(around.top)
    right, bottom = math.ceil(around.right), math.ceil(around.bottom)
    width, height = right - left, bottom - top
    inner = Inner(0, 0, pipeline.width, pipeline.height)
    if pipeline.fit == "letterbox":
        inner = _letterboxed(width, height, pipeline.width, pipeline.height)
    scale_x, scale_y = (inner.right - inner.left) / width, (inner.bottom - inner.top) / height
    fit = Fit(scale_x, scale_y, inner.left - left * scale_x, inner.top - top * scale_y)
    return CropWindow(Region(box, fit, inner), left, top, right, bottom)


def _cropped(around: Box, size: tuple[int, int], aspect: float) -> Box:
    """Return a box with the aspect ratio of the model's input (width ÷ height) and the centre of ``around``.

    The shorter side grows up to the edges of the frame. If that is too little, the longer side is cut on both ends.
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
