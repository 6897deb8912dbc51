"""Numbered frames, and the gate's decisions to send or withhold them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ingest.contract.records import Box


@dataclass(frozen=True, slots=True)
class NumberedFrame:
    """Captured frame and its sequence number.

    ``image`` is ``(height, width, 3)`` uint8 BGR; None if the frame was not decoded. ``view`` is the state of the
    camera's view, empty for a good view.
    """

    seq: int
    captured_ns: int
    time_source: str = "host"
    error_ms: float | None = None
    image: npt.NDArray[np.uint8] | None = None
    view: str = ""


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Decision on a frame: to send the frame if ``reason`` is empty, or to withhold the frame for this reason.

    A decision to send a frame contains the frame's image; a final decision to withhold a frame contains no image. A
    decision in the gate's pre-roll buffer is preliminary. A preliminary decision contains the frame's image, because
    later motion may reverse the decision.

    ``motion`` contains the boxes of moving objects; None if the gate did not examine the frame. ``resting`` contains
    the boxes of stationary objects; None if the frame does not report stationary objects. ``sampled`` marks a frame
    without motion that is sent as a random sample, to check the gate's decisions.
    """

    frame: NumberedFrame
    reason: str = ""
    motion: tuple[Box, ...] | None = None
    resting: tuple[Box, ...] | None = None
    sampled: bool = False

    @property
    def keep(self) -> bool:
        """Whether the decision is to send the frame."""
        return not self.reason


def withheld(frame: NumberedFrame, reason: str) -> GateDecision:
    """Return a final decision to withhold a frame for the given reason.

    The decision does not contain the frame's image.
    """
    return GateDecision(replace(frame, image=None), reason)
