"""Choose the regions of a frame that a model examines. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from itertools import islice
from operator import attrgetter

from ingest.contract.crop import CropWindow, crop_window
from ingest.contract.records import Box, Lens
from ingest.site import PipelineConfig

MERGE_SHARE = 0.6
"""Minimum overlap, as a share of the smaller box, at which two moving regions are merged. The agent's gate may send
several boxes for one object, and they overlap by a larger share. Boxes of two objects that pass each other overlap by
a smaller share."""
BESIDE_SHARE = 0.1
"""A stationary box is cropped only if a smaller share of its area lies inside a moving box. If a larger share lies
inside a moving box, the stationary object begins to move and would be detected twice, or is hidden by another
object."""

MAX_BOXES = 128
"""Maximum number of boxes that are used per frame: twice the maximum number of regions. The time to merge boxes grows
with the square of the number of boxes: 5 ms for 128 boxes, but half a day for the 400,000 boxes that fit into a
record."""


def windows(
    pipeline: PipelineConfig,
    size: tuple[int, int],
    motion: Sequence[Box] | None,
    most: int,
    resting: Sequence[Box] = (),
    lens: Lens | None = None,
) -> tuple[CropWindow, ...]:
    """Return from one to ``most`` crop windows of a frame of ``size`` (width, height).

    With ``regions = "tiles"``, return the full frame and its tiles. With ``regions = "motion"``, return the moving
    regions, or the full frame if the agent sent no regions inside the frame. Else return the full frame. If there are
    more than ``most`` moving regions, keep the largest regions. If there are fewer than ``most`` moving regions, add
    stationary boxes in the given order, except boxes inside a moving region. ``resting`` has the boxes of stationary
    objects, already clipped by ``usable``.

    With a ``lens``, the windows are parts of the undistorted frame, and their boxes stay in pixels of the frame.
    """
    moving = merged(usable(motion or (), size)) if pipeline.regions == "motion" else []
    boxes = sorted(moving, key=attrgetter("area"), reverse=True)
    if pipeline.regions == "motion" and (moving or motion == ()):
        boxes += resting_beside(moving, resting)
    shown = ((box, part) for box in boxes if (part := _undistorted(box, lens, size)))
    margin = pipeline.region_margin
    found = [(box, part.widened(margin).clipped(*size)) for box, part in islice(shown, most)]
    if not found:
        whole = Box(0.0, 0.0, float(size[0]), float(size[1]))
        parts = tiles(pipeline, size, most - 1) if pipeline.regions == "tiles" else []
        found = [
            (whole, whole),
            *((lens.distorted_box(part).clipped(*size) if lens else part, part) for part in parts),
        ]
    return tuple(crop_window(pipeline, box, around, size) for box, around in found)


def _undistorted(box: Box, lens: Lens | None, size: tuple[int, int]) -> Box | None:
    """Return a box of the frame in pixels of the undistorted frame; None if the undistorted frame does not show
    it."""
    if lens is None:
        return box
    found = lens.undistorted_box(box)
    found = found.clipped(*size) if found else None
    return found if found and found.width >= 1.0 and found.height >= 1.0 else None


def resting_beside(moving: Sequence[Box], resting: Sequence[Box]) -> list[Box]:
    """Return the stationary boxes of which less than ``BESIDE_SHARE`` lies inside any moving box."""
    return [box for box in resting if not any(box.shared(other) / box.area >= BESIDE_SHARE for other in moving)]


def tiles(pipeline: PipelineConfig, size: tuple[int, int], most: int) -> list[Box]:
    """Return the tiles of a frame of ``size`` (width, height), in whole pixels, row by row.

    All tiles have the same size, and together they cover the frame. Two neighbouring tiles share at least
    ``tile_overlap`` of their width or height, less one pixel. A tile shows the frame at the scale of the model's
    input, or at the largest smaller scale at which at most ``most`` tiles cover the frame. Return no tile for a frame
    that one tile would cover.
    """
    sides, shape, shared = range(2), (pipeline.width, pipeline.height), pipeline.tile_overlap
    # the scales at which a number of tiles just covers a side
    scales = {size[n] / (k - (k - 1) * shared) / shape[n] for n in sides for k in range(1, most + 1)}
    for scale in sorted({max(1.0, scale) for scale in scales}):
        width, height = (min(size[n], math.ceil(shape[n] * scale)) for n in sides)
        lefts, tops = _starts(size[0], width, shared), _starts(size[1], height, shared)
        if 1 < len(lefts) * len(tops) <= most:
            return [
                Box(float(left), float(top), float(left + width), float(top + height))
                for top in tops
                for left in lefts
            ]
    return []


def _starts(side: int, part: int, shared: float) -> list[int]:
    """Divide a side of a frame into as few evenly spaced parts as possible, and return the first pixel of each
    part."""
    overlap = math.floor(part * shared)
    count = 1 if part >= side else math.ceil((side - overlap) / (part - overlap))
    return [round(n * (side - part) / (count - 1)) for n in range(count)] if count > 1 else [0]


def merged(boxes: Sequence[Box]) -> list[Box]:
    """Merge boxes that overlap by at least ``MERGE_SHARE`` of the smaller box, until no two boxes overlap so far."""
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


def usable(motion: Sequence[Box], size: tuple[int, int]) -> list[Box]:
    """Return the boxes clipped to a frame of ``size``.

    Drop boxes outside of the frame, and keep the ``MAX_BOXES`` largest boxes.
    """
    inside = (box.clipped(*size) for box in motion if all(map(math.isfinite, box)))
    found = [box for box in inside if box.width >= 1.0 and box.height >= 1.0]
    return found if len(found) <= MAX_BOXES else heapq.nlargest(MAX_BOXES, found, key=attrgetter("area"))
