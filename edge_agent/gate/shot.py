"""A numbered frame on its way through the gate, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ingest.contract.records import Box


@dataclass(frozen=True, slots=True)
class Shot:
    """A captured frame. ``image`` is ``(height, width, 3)`` uint8 BGR, None when nobody has asked for its pixels."""

    seq: int
    captured_ns: int
    time_source: str = "host"
    error_ms: float | None = None
    image: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Fate:
    """``reason`` says why a frame is withheld; empty when it is kept, and then it has its image.

    ``motion`` is None when the gate did not look, and empty when it looked and nothing moved. ``resting`` is where
    something has stopped and not gone since, None in frames that do not tell. ``sampled`` marks a
    frame that is sent only to see whether the gate is right about it.
    """

    shot: Shot
    reason: str = ""
    motion: tuple[Box, ...] | None = None
    resting: tuple[Box, ...] | None = None
    sampled: bool = False

    @property
    def keep(self) -> bool:
        """Tell whether the frame is kept."""
        return not self.reason
