"""Pictures that come as whole files: JPEG, PNG and what else OpenCV reads. Decoded only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from edge_agent.exceptions import FrameUnusable
from edge_agent.sources.source import CapturedFrame, Grey, Image

MAX_PICTURE_BYTES = 64 * 1024 * 1024
"""An 8K PNG of a noisy scene is about so large."""
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_END_WITHIN_BYTES = 4096
"""Some cameras put a comment or zeros behind the end of a JPEG."""


def captured(data: bytes, captured_ns: int) -> CapturedFrame:
    """Return a frame of an encoded picture. Its ``image`` raises FrameUnusable when the picture is cut or broken."""
    return CapturedFrame(
        lambda: _decoded(data, cv2.IMREAD_COLOR),
        captured_ns,
        luma=lambda: _decoded(data, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    )


def unusable(why: str, captured_ns: int) -> CapturedFrame:
    """Return a frame that was captured, and that nobody will see."""
    return CapturedFrame(failing(why), captured_ns)


def failing(why: str) -> Callable[[], Image]:
    """Return what stands for a picture that cannot be made: it raises FrameUnusable."""

    def fail() -> Image:
        raise FrameUnusable(why)

    return fail


def _decoded(data: bytes, how: int) -> Image | Grey:
    if data.startswith(_JPEG) and _JPEG_END not in data[-_END_WITHIN_BYTES:]:
        raise FrameUnusable(f"a JPEG of {len(data)} bytes is cut off")
    try:
        # OPENCV_IO_MAX_IMAGE_PIXELS, which the agent sets for its children, bounds what a header may claim
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error as error:
        raise FrameUnusable(f"{len(data)} bytes are no picture: {error.err}") from None
    if image is None:
        raise FrameUnusable(f"{len(data)} bytes are no picture that can be read")
    return np.asarray(image, np.uint8)
