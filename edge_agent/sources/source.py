"""The seam for what frames come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""``(height, width, 3)`` uint8 BGR."""
Grey = npt.NDArray[np.uint8]
"""``(height, width)`` uint8."""


class CapturedFrame:
    """One frame and when it was captured, in Unix ns. Its pixels are made when they are first asked for.

    Most of what a decoder gives is dropped by the rate gate, which needs the time only: a frame that nobody looks at
    costs no conversion. Ask for the picture before the source's next ``read``: a device keeps no more than one.

    ``time_source`` is ``host`` for the clock on arrival, ``stream`` for the stream's own. ``error_ms`` is by how much
    that differs from the arrival, and so how far off it may be while the stream's clock is not ahead of the host's;
    None where nothing is known.
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
        """The picture. It belongs to the receiver. Raise FrameUnusable when it cannot be made."""
        if callable(self._image):
            self._image = self._image()
        return self._image

    @property
    def shape(self) -> tuple[int, ...]:
        """The picture's shape, empty while it has not been made."""
        return () if callable(self._image) else self._image.shape

    def luma(self) -> Grey:
        """Return the picture in grey, to look at and not to write to; may be smaller, and is cheaper than ``image``.

        Raise FrameUnusable when it cannot be made.
        """
        if self._luma is not None and callable(self._image):
            return self._luma()
        return np.asarray(cv2.cvtColor(self.image, cv2.COLOR_BGR2GRAY), np.uint8)


class FrameSource(Protocol):
    """A camera, file or scene. Its methods belong to one thread, and are called in the order open, read …, close."""

    def open(self) -> None:
        """Get ready to read. Blocks. Raise SourceUnusable."""
        ...

    def read(self) -> CapturedFrame | None:
        """Return the next frame, in the source's own pace: blocks until it is due, and then is not late on purpose.

        Return None when the next one is not due yet, at least once a second: the caller may stop, or asks again. Only
        a source that waits for a camera does so for longer, and no longer than a stall. Raise SourceEnded when there
        will be no more, SourceStalled when none came for too long.
        """
        ...

    def close(self) -> None:
        """Let go. May be called at any time, and twice."""
        ...
