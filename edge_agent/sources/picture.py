"""Pictures that arrive as complete files: JPEG, PNG and other formats of OpenCV. They are decoded on demand."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from edge_agent.exceptions import FrameUnusable
from edge_agent.sources.source import CapturedFrame, Grey, Image

MAX_PICTURE_BYTES = 64 * 1024 * 1024
"""Maximum size of an encoded picture: an 8K PNG of a noisy scene is about this large."""
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_END_WITHIN_BYTES = 4096
"""Distance from the end of the data within which a JPEG may end: some cameras append a comment or zeros."""


def captured(data: bytes, captured_ns: int) -> CapturedFrame:
    """Return a frame of an encoded picture. Its ``image`` raises FrameUnusable for a truncated or damaged picture."""
    return CapturedFrame(
        lambda: _decoded(data, cv2.IMREAD_COLOR),
        captured_ns,
        luma=lambda: _decoded(data, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    )


def unusable(why: str, captured_ns: int) -> CapturedFrame:
    """Return a captured frame whose picture cannot be made."""
    return CapturedFrame(failing(why), captured_ns)


def failing(why: str) -> Callable[[], Image]:
    """Return a function that raises FrameUnusable instead of making a picture."""

    def fail() -> Image:
        raise FrameUnusable(why)

    return fail


def _decoded(data: bytes, how: int) -> Image | Grey:
    if data.startswith(_JPEG) and _JPEG_END not in data[-_END_WITHIN_BYTES:]:
        raise FrameUnusable(f"truncated JPEG of {len(data)} bytes")
    try:
        # the agent sets OPENCV_IO_MAX_IMAGE_PIXELS for its children, which limits the size that a header may claim
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error as error:
        raise FrameUnusable(f"{len(data)} bytes cannot be decoded as a picture: {error.err}") from None
    if image is None:
        raise FrameUnusable(f"{len(data)} bytes are not a picture in a known format")
    return np.asarray(image, np.uint8)
