"""High-water marks that recognise frames which have been classified already. Pure."""

from __future__ import annotations

from collections import defaultdict

from ingest.contract import headers as h
from ingest.contract.identity import FrameId
from ingest.kafka.log import LogRecord

EPOCHS_KEPT = 64
"""Maximum epochs per camera, lane and pipeline; the oldest is forgotten first.

An epoch is one run of a capture process, and a spool drains long before the 64th restart. A frame of a forgotten
epoch is classified, never dropped as a repeat.
"""


class HighWaterMarks:
    """Highest sequence number seen, per camera, lane, pipeline and epoch.

    Within a lane and an epoch, frames arrive in the order of their sequence numbers. After a crash they arrive again
    from an earlier number. Therefore every frame at or below the mark is a repeat.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[str, str, str], dict[int, int]] = defaultdict(dict)

    def is_repeat(self, frame: FrameId, lane: str, pipeline: str) -> bool:
        """Return whether a frame is at or below its mark."""
        return frame.seq <= self._marks[frame.camera, lane, pipeline].get(frame.epoch, -1)

    def advance(self, frame: FrameId, lane: str, pipeline: str) -> None:
        """Raise the mark to a frame. A frame below the mark does not change it."""
        epochs = self._marks[frame.camera, lane, pipeline]
        epochs[frame.epoch] = max(frame.seq, epochs.get(frame.epoch, -1))
        if len(epochs) > EPOCHS_KEPT:
            del epochs[min(epochs)]

    def advance_past(self, record: LogRecord) -> None:
        """Raise the marks to all frames that the headers of a result or of a dead letter name."""
        pipeline = record.headers.get(h.PIPELINE, b"").decode(errors="replace")
        lane = h.lane_of(record.headers, record.topic)
        for frame in h.frames_of(record.headers):
            self.advance(frame, lane, pipeline)
