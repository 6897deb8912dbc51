"""Checks that recognise model outputs whose shape fits a decoder but whose values have another meaning.

Each check returns the reason why the values do not fit, or "" if the values fit. All checks are pure functions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from engines.decoders.boxes import Floats

_OVER = 1e-3
"""Maximum distance of a score from the range 0 to 1 that half-precision rounding can cause."""
_SHARES = 2.0
"""Limit that distinguishes box coordinates in fractions of the input size from coordinates in px. Even a box that
extends beyond the image has fractions below 2. Coordinates in px exceed 2 unless all boxes lie in the first two
pixels of the image."""
_MOSTLY = 0.9
"""Minimum share of boxes that must be in the order left, top, right, bottom. A few boxes may be in another order,
because boxes without an object may have any corners."""
_FEW = 16
"""Minimum number of boxes for a check of the coordinate order, because the coordinates of fewer boxes prove
nothing."""


def not_scores(scores: Floats, cure: str) -> str:
    """Return the reason why ``scores`` are not between 0 and 1, or "" if all scores are."""
    if are_scores(scores):
        return ""
    low, high = float(scores.min()), float(scores.max())
    return f"scores lie between {low:.3g} and {high:.3g}: expected 0 to 1. {cure}"


def are_scores(values: Floats) -> bool:
    """Return whether all numbers lie between 0 and 1, with a tolerance for rounding."""
    return bool(not values.size or (values.min() >= -_OVER and values.max() <= 1.0 + _OVER))


def not_pixels(boxes: Floats, cure: str) -> str:
    """Return the reason why box coordinates are not in px of the input, or "" if they may be in px.

    Boxes whose coordinates are all 0 are padding.
    """
    if boxes.size and boxes.any() and np.abs(boxes).max() <= _SHARES:
        return f"no box coordinate exceeds {float(boxes.max()):.3g}: expected px of the input. {cure}"
    return ""


def not_shares(boxes: Floats, cure: str) -> str:
    """Return the reason why box coordinates are not fractions of the input size, or "" if they may be fractions."""
    centres = (boxes[..., :2] + boxes[..., 2:]) / 2
    if centres.size and np.median(np.abs(centres)) > _SHARES:
        return f"box coordinates reach {float(boxes.max()):.4g}: expected shares of the input, 0 to 1. {cure}"
    return ""


def not_in_unit(boxes: Floats, unit: str) -> str:
    """Return the reason why box corners are not in ``unit``, which is ``share`` or ``px``, or "" if they may be."""
    return not_shares(boxes, "Set unit = px") if unit == "share" else not_pixels(boxes, "Set unit = share")


def not_sizes(boxes: Floats, cure: str) -> str:
    """Return the reason why the last two of the four box numbers are not width and height, or "" if they may be."""
    lowest = float(boxes[..., 2:4].min(initial=0.0))
    return f"widths and heights go down to {lowest:.3g}: expected 0 or more. {cure}" if lowest < -_OVER else ""


def not_corners(boxes: Floats, cure: str) -> str:
    """Return a reason if many boxes have right < left or bottom < top, else ""."""
    if not boxes.size or _ordered(boxes) >= _MOSTLY:
        return ""
    share = round(100 * (1 - _ordered(boxes)))
    return f"{share} % of the boxes have right < left or bottom < top: expected left, top, right, bottom. {cure}"


def not_centres(boxes: Floats, cure: str) -> str:
    """Return a reason if all boxes look like corners instead of centre x, centre y, width, height, else ""."""
    if boxes[..., 0].size >= _FEW and (boxes[..., :2] < boxes[..., 2:4]).all():
        return f"boxes look like left, top, right, bottom: expected centre x, centre y, width, height. {cure}"
    return ""


def not_classes(values: npt.NDArray[np.float32], labels: int, first: int = 0) -> str:
    """Return the reason why ``values`` are not label indices, or "" if they are.

    ``first`` is the model's class number of the first label. The caller has subtracted ``first`` from the model's
    class numbers.
    """
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
