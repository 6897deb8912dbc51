"""High-water marks: what has been classified already, so that a repeat is not classified again. Pure."""

from __future__ import annotations

from collections import defaultdict

from ingest.contract.identity import FrameId

EPOCHS_KEPT = 64
"""Per camera, lane and pipeline. An epoch is a start of a capture; a spool drains long before the 64th restart. A
frame of an epoch that no mark knows is processed, never dropped as a repeat."""


class HighWaterMarks:
    """The highest sequence number seen per camera, lane, pipeline and epoch.

    Within a lane and an epoch frames come in the order of their numbers, and what a crash repeats comes again from
    an earlier number on: whatever is not above the mark is a repeat.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[str, str, str], dict[int, int]] = defaultdict(dict)

    def is_repeat(self, frame: FrameId, lane: str, pipeline: str) -> bool:
        """Tell whether a frame has been seen."""
        return frame.seq <= self._marks[frame.camera, lane, pipeline].get(frame.epoch, -1)

    def advance(self, frame: FrameId, lane: str, pipeline: str) -> None:
        """Raise the mark to a frame. A lower number than the mark leaves it where it is."""
        epochs = self._marks[frame.camera, lane, pipeline]
        epochs[frame.epoch] = max(frame.seq, epochs.get(frame.epoch, -1))
        if len(epochs) > EPOCHS_KEPT:
            del epochs[min(epochs)]
