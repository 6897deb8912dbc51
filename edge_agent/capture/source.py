"""The seam for what frames come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Captured", "FrameSource"]


@dataclass(frozen=True, slots=True)
class Captured:
    """One frame ``(height, width, 3)`` uint8 BGR and when it was captured, in Unix ns.

    The image belongs to the receiver: the source does not touch it again. ``time_source`` is ``host`` for the clock
    on arrival, ``stream`` for the stream's own.
    """

    image: npt.NDArray[np.uint8]
    captured_ns: int
    time_source: str = "host"


class FrameSource(Protocol):
    """A camera, file or scene. Its methods belong to one thread, and are called in the order open, read …, close."""

    def open(self) -> None:
        """Get ready to read. Blocks. Raise SourceUnusable."""
        ...

    def read(self) -> Captured:
        """Return the next frame, in the source's own pace: blocks until it is due, and then is not late on purpose.

        Raise SourceEnded when there will be no more, SourceStalled when none came for too long.
        """
        ...

    def close(self) -> None:
        """Let go. May be called at any time, and twice."""
        ...
