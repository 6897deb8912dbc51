"""What part of a frame a model looks at, and how it is laid into the model's input. Pure geometry and pixels."""

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
"""Two moving regions are one when they share so much of the smaller one: a gate's boxes of one object overlap, two
objects that pass each other share less."""
BESIDE_SHARE = 0.1
"""Of something that rests: if more of it moves, it is setting off, and would be found twice, or it is hidden."""

MAX_BOXES = 128
"""Of one frame, twice as many as it may have regions. Joining takes the square of their number: 5 ms for so many,
half a day for the 400,000 that fit into a record."""


@dataclass(frozen=True, slots=True)
class CropWindow:
    """A part of the frame to cut out.

    ``region.box`` is what moved, in pixels of the frame, as tight as the agent saw it; the window around it,
    ``left, top, right, bottom`` in whole pixels, is what the model sees: ``region.fit`` and ``region.inner`` say how
    and where.
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
    """Return the windows of a frame of ``size`` (width, height), at least one and at most ``most``.

    The full frame unless the pipeline looks at motion and the agent named regions that lie in the frame. Of too many,
    the largest are kept. What rests is looked at while there is room, in the order in which it is named, unless
    something moves there; these boxes are ``usable``.
    """
    whole = Box(0.0, 0.0, *map(float, size))
    moving = merged(usable(motion or (), size)) if pipeline.regions == "motion" else []
    if not moving and (pipeline.regions != "motion" or motion != () or not resting):
        return (_window(pipeline, whole, whole),)
    boxes = sorted(moving, key=attrgetter("area"), reverse=True)
    boxes += [box for box in resting if not any(box.shared(other) / box.area >= BESIDE_SHARE for other in moving)]
    return tuple(_window(pipeline, box, box.widened(pipeline.region_margin).clipped(*size)) for box in boxes[:most])


def merged(boxes: Sequence[Box]) -> list[Box]:
    """Join boxes that share at least ``MERGE_SHARE`` of the smaller one, until no two do."""
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
    """Return a window of a BGR image at the size of ``region.inner``, in the pipeline's colours, contiguous."""
    part = image[window.top : window.bottom, window.left : window.right]
    left, top, right, bottom = window.region.inner
    # Bilinear at every scale: what models are trained with, and a tenth of the cost of averaging areas.
    drawn = cv2.resize(part, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    if pipeline.colour == "rgb":
        drawn = cv2.cvtColor(drawn, cv2.COLOR_BGR2RGB, dst=drawn)
    return drawn  # type: ignore[return-value]  # OpenCV's type is wider: it keeps uint8 where it was given it


def usable(motion: Sequence[Box], size: tuple[int, int]) -> list[Box]:
    """Return the parts that lie in a frame of ``size`` of the boxes that have any, the largest ones if too many."""
    inside = (box.clipped(*size) for box in motion if all(map(math.isfinite, box)))
    found = [box for box in inside if box.width >= 1.0 and box.height >= 1.0]
    return found if len(found) <= MAX_BOXES else heapq.nlargest(MAX_BOXES, found, key=attrgetter("area"))


def _window(pipeline: PipelineConfig, box: Box, around: Box) -> CropWindow:
    left, top = math.floor(around.left), math.floor(around.top)
    right, bottom = math.ceil(around.right), math.ceil(around.bottom)
    width, height = right - left, bottom - top
    inner = Inner(0, 0, pipeline.width, pipeline.height)
    if pipeline.fit == "letterbox":
        inner = _letterboxed(width, height, pipeline.width, pipeline.height)
    scale_x, scale_y = (inner.right - inner.left) / width, (inner.bottom - inner.top) / height
    fit = Fit(scale_x, scale_y, inner.left - left * scale_x, inner.top - top * scale_y)
    return CropWindow(Region(box, fit, inner), left, top, right, bottom)


def _letterboxed(width: int, height: int, wide: int, high: int) -> Inner:
    """Return the largest rectangle of the same shape, in the middle of the model's input."""
    scale = min(wide / width, high / height)
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (wide - w) // 2, (high - h) // 2
    return Inner(left, top, left + w, top + h)
