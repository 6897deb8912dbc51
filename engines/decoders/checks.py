"""Checks that recognise outputs of the right shape but of another meaning.

Each check returns a reason, or "". Pure.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.decoders.boxes import Floats

_OVER = 1e-3
"""Maximum distance by which rounding in half precision moves a score outside of 0 to 1."""
_SHARES = 2.0
"""Coordinates in shares of the input lie below this limit, even for a box that leaves the picture. A detector in px
has coordinates above this limit unless all of its boxes lie in the first two pixels."""
_MOSTLY = 0.9
"""Minimum share of boxes that must have the expected layout. Boxes without an object may have any corners."""
_FEW = 16
"""Number of boxes below which their coordinates prove no layout."""


def not_scores(scores: Floats, cure: str) -> str:
    """Return why numbers are not scores between 0 and 1."""
    if are_scores(scores):
        return ""
    low, high = float(scores.min()), float(scores.max())
    return f"scores lie between {low:.3g} and {high:.3g}: expected 0 to 1. {cure}"


def are_scores(values: Floats) -> bool:
    """Return whether all numbers lie between 0 and 1."""
    return bool(not values.size or (values.min() >= -_OVER and values.max() <= 1.0 + _OVER))


def not_pixels(boxes: Floats, cure: str) -> str:
    """Return why boxes are not in px of the input. Rows of zeros are padding, not boxes."""
    if boxes.size and boxes.any() and np.abs(boxes).max() <= _SHARES:
        return f"no box coordinate exceeds {float(boxes.max()):.3g}: expected px of the input. {cure}"
    return ""


def not_shares(boxes: Floats, cure: str) -> str:
    """Return why boxes are not shares of the input."""
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    if centres.size and np.median(np.abs(centres)) > _SHARES:
        return f"box coordinates reach {float(boxes.max()):.4g}: expected shares of the input, 0 to 1. {cure}"
    return ""


def not_in_unit(boxes: Floats, unit: str) -> str:
    """Return why corners are not in ``unit``, which is ``share`` or ``px``."""
    return not_shares(boxes, "Set unit = px") if unit == "share" else not_pixels(boxes, "Set unit = share")


def not_sizes(boxes: Floats, cure: str) -> str:
    """Return why the last two of four numbers are not widths and heights."""
    lowest = float(boxes[..., 2:4].min(initial=0.0))
    return f"widths and heights go down to {lowest:.3g}: expected 0 or more. {cure}" if lowest < -_OVER else ""


def not_corners(boxes: Floats, cure: str) -> str:
    """Return why boxes are not left, top, right, bottom: in many boxes, right < left or bottom < top."""
    if not boxes.size or _ordered(boxes) >= _MOSTLY:
        return ""
    share = round(100 * (1 - _ordered(boxes)))
    return f"{share} % of the boxes have right < left or bottom < top: expected left, top, right, bottom. {cure}"


def not_centres(boxes: Floats, cure: str) -> str:
    """Return why boxes are not centre x, centre y, width, height: all boxes look like left, top, right, bottom."""
    if boxes[..., 0].size >= _FEW and (boxes[..., :2] < boxes[..., 2:4]).all():
        return f"boxes look like left, top, right, bottom: expected centre x, centre y, width, height. {cure}"
    return ""


def not_classes(values: npt.NDArray[np.float32], labels: int, first: int = 0) -> str:
    """Return why numbers are not indices of labels. ``first`` has been subtracted from the numbers of the model."""
    if (values != np.round(values)).any():
        return f"class column has {float(values[values != np.round(values)][0]):.4g}: expected whole numbers"
    if values.size and values.max() >= labels:
        highest = int(values.max())
        return (
            f"class column has {highest + first}: expected numbers below {labels + first}, for {labels} labels. "
            f"Pass a --labels file with at least {highest + 1} lines"
        )
    if first and values.size and values.min() < 0:
        return f"class column has {int(values.min()) + first}: expected {first} or more. Set first_class = 0"
    return ""


def _ordered(boxes: Floats) -> float:
    return float((boxes[..., :2] <= boxes[..., 2:4]).all(axis=-1).mean())
