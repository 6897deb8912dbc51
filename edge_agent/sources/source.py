"""Seam for sources of frames, and frames of encoded pictures: JPEG, PNG and other formats of OpenCV."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.exceptions import FrameUnusable

Image = npt.NDArray[np.uint8]
"""``(height, width, 3)`` uint8 BGR."""
Grey = npt.NDArray[np.uint8]
"""``(height, width)`` uint8."""

MAX_PICTURE_BYTES = 64 * 1024 * 1024
"""Maximum size of an encoded picture: an 8K PNG of a noisy scene is about this large."""
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_END_WITHIN_BYTES = 4096
"""Distance from the end of the data within which a JPEG may end: some cameras append a comment or zeros."""


class CapturedFrame:
    """One frame with its capture time in Unix ns. Its pixels are made on first access.

    The rate gate drops most decoded frames and needs only their times, so a dropped frame costs no conversion. Access
    the picture before the source's next ``read``, because a device keeps only one.

    ``time_source`` is ``host`` for the host's clock at arrival, or ``stream`` for the stream's own clock.
    ``error_ms`` is the difference between that time and the arrival. It bounds the error unless the stream's clock is
    ahead of the host's. None means that the error is unknown.
    """

    __slots__ = ("_image", "_luma", "captured_ns", "error_ms", "time_source")

    def __init__(
        self,
        image: Image | Callable[[], Image],
        captured_ns: int,
        time_source: str = "host",
        *,
        error_ms: float | None = None,
        luma: Callable[[], Grey] | None = None,
    ) -> None:
        self._image, self._luma = image, luma
        self.captured_ns, self.time_source, self.error_ms = captured_ns, time_source, error_ms

    @property
    def image(self) -> Image:
        """The picture, owned by the receiver. Raise FrameUnusable when it cannot be made."""
        if callable(self._image):
            self._image = self._image()
        return self._image

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the picture; empty until it is made."""
        return () if callable(self._image) else self._image.shape

    def luma(self) -> Grey:
        """Return a read-only grey picture. It may be smaller than ``image`` and is cheaper.

        Raise FrameUnusable when it cannot be made.
        """
        if self._luma is not None and callable(self._image):
            return self._luma()
        return np.asarray(cv2.cvtColor(self.image, cv2.COLOR_BGR2GRAY), np.uint8)


class FrameSource(Protocol):
    """Source of frames. One thread calls its methods in the order open, read …, close."""

    def open(self) -> None:
        """Prepare for reading. Blocks. Raise SourceUnusable."""

    def read(self) -> CapturedFrame | None:
        """Block until the next frame is due and return it.

        Return None at least once a second while no frame is due; the caller may then stop or call again. Only a
        source that waits for a camera blocks longer, at most for the stall time. Raise SourceEnded at the end of the
        source, and SourceStalled when no frame came for the stall time.
        """

    def close(self) -> None:
        """Release all resources. Callable at any time, also twice."""


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
