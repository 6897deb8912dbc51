"""``FrameSource``, the interface of all frame sources, and ``CapturedFrame``, a frame that a source delivers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.exceptions import FrameUnusable

Image = npt.NDArray[np.uint8]
"""Colour picture: ``(height, width, 3)`` uint8 BGR."""
Grey = npt.NDArray[np.uint8]
"""Grey picture: ``(height, width)`` uint8."""


class CapturedFrame:
    """One frame with its capture time in Unix ns. The picture is decoded at the first access to ``image``.

    Most frames are never converted to pixels, because the gate drops most frames by their capture time alone. Access
    ``image`` before the source's next ``read``, because a V4L2 device keeps only its latest picture.

    ``time_source`` names the clock that gave the capture time: ``host`` for the host's clock at the frame's arrival,
    or ``stream`` for the stream's own clock. ``error_ms`` is the difference between the capture time and the arrival
    time. The error of the capture time is at most ``error_ms``, unless the stream's clock is ahead of the host's
    clock. ``error_ms`` is None if the error is unknown.

    ``view`` is the state of the camera's view, which ``WatchedSource`` sets; empty for a good view.
    """

    __slots__ = ("_image", "_luma", "captured_ns", "error_ms", "time_source", "view")

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
        self.view = ""

    @property
    def image(self) -> Image:
        """The colour picture, which the caller may change. Raise FrameUnusable if the picture cannot be decoded."""
        if callable(self._image):
            self._image = self._image()
        return self._image

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape ``(height, width, 3)`` of the picture; empty before the first access to ``image``."""
        return () if callable(self._image) else self._image.shape

    def luma(self) -> Grey:
        """Return a read-only grey picture.

        Making the grey picture takes less time than making ``image``, and the grey picture may be smaller than
        ``image``.

        Raise FrameUnusable if the picture cannot be decoded.
        """
        if self._luma is not None and callable(self._image):
            return self._luma()
        return np.asarray(cv2.cvtColor(self.image, cv2.COLOR_BGR2GRAY), np.uint8)


class FrameSource(Protocol):
    """Source of frames. One thread calls ``open`` once, then ``read`` repeatedly, then ``close``."""

    def open(self) -> None:
        """Prepare the source for reading. May block. Raise SourceUnusable."""

    def read(self) -> CapturedFrame | None:
        """Block until the next frame is due and return it.

        While no frame is due, return None at least once a second, so that the caller can check for a stop request. A
        source that waits for a camera may block for longer than a second, but at most for the stall time. Raise
        SourceEnded when the source has no more frames. Raise SourceStalled when no frame has arrived for the stall
        time.
        """

    def close(self) -> None:
        """Release all resources. ``close`` may be called at any time, and more than once."""


def unusable(why: str, captured_ns: int) -> CapturedFrame:
    """Return a frame whose ``image`` raises FrameUnusable with the reason ``why``."""
    return CapturedFrame(failing(why), captured_ns)


def failing(why: str) -> Callable[[], Image]:
    """Return a function that raises FrameUnusable with the reason ``why`` instead of returning a picture."""

    def fail() -> Image:
        raise FrameUnusable(why)

    return fail
