"""Numbered frames and the gate's decisions on them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ingest.contract.records import Box


@dataclass(frozen=True, slots=True)
class NumberedFrame:
    """Captured frame with its sequence number. ``image`` is ``(height, width, 3)`` uint8 BGR; None if not decoded."""

    seq: int
    captured_ns: int
    time_source: str = "host"
    error_ms: float | None = None
    image: npt.NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Decision to send a frame or to withhold it for a ``reason``, which is empty when the frame is sent.

    The decision to send a frame contains the frame's image; the decision to withhold a frame does not. The pre-roll
    buffer holds preliminary decisions. A frame in the buffer keeps its image, because later motion may reverse the
    decision.

    ``motion`` has the boxes of moving objects; None if the gate did not examine the frame. ``resting`` has the boxes
    of stationary objects; None if the frame does not report stationary objects. ``sampled`` marks a frame that is
    sent only to check the gate's decisions.
    """

    frame: NumberedFrame
    reason: str = ""
    motion: tuple[Box, ...] | None = None
    resting: tuple[Box, ...] | None = None
    sampled: bool = False

    @property
    def keep(self) -> bool:
        """Whether the frame is sent."""
        return not self.reason


def withheld(frame: NumberedFrame, reason: str) -> GateDecision:
    """Return the final decision to withhold a frame. The returned decision has no image."""
    return GateDecision(replace(frame, image=None), reason)
