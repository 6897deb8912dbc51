"""Making a rectangle unrecognisable, for good. Pure.

All three methods are bounded by what is left, and not by how it looks. ``fill`` leaves nothing. ``pixelate`` leaves
at most ``MAX_BLOCKS`` × ``MAX_BLOCKS`` mean colours over the widened box, whatever the face's size, and fewer of a
small one. ``blur`` draws these same mean colours smoothly: a plain Gaussian blur can be undone, since it only weakens
fine detail, but what was averaged into a block is gone.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ingest.contract.records import Box

Image = npt.NDArray[np.uint8]
Method = Literal["pixelate", "blur", "fill"]

MAX_BLOCKS = 8
"""Across the box, which is half as wide again as the face: five or six over the face itself."""
MIN_BLOCK_PX = 6
"""A block is at least this wide, so that of a small face less is left than of a large one."""
FILL_GREY = 127
"""Neither black, which looks like a mask or the night, nor a colour that a model has learnt."""


def obscure(image: Image, box: Box, method: Method) -> bool:
    """Make a box of ``(height, width, 3)`` uint8 unrecognisable in place. Return whether any of it is there."""
    left, top = max(0, int(np.floor(box.left))), max(0, int(np.floor(box.top)))
    right, bottom = min(image.shape[1], int(np.ceil(box.right))), min(image.shape[0], int(np.ceil(box.bottom)))
    if left >= right or top >= bottom:
        return False
    part = image[top:bottom, left:right]
    part[:] = FILL_GREY if method == "fill" else _averaged(part, method)
    return True


def _averaged(part: Image, method: Method) -> Image:
    height, width = part.shape[:2]
    few = cv2.resize(part, (_blocks(width), _blocks(height)), interpolation=cv2.INTER_AREA)
    how = cv2.INTER_NEAREST if method == "pixelate" else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(few, (width, height), interpolation=how), np.uint8)


def _blocks(side_px: int) -> int:
    return max(1, min(MAX_BLOCKS, side_px // MIN_BLOCK_PX))
