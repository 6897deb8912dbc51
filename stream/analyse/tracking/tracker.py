"""The seam for tracking, and ByteTrack behind it.

ByteTrack (Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864) comes from the package ``trackers``, with
buffered boxes (Yang et al., 2022, https://arxiv.org/abs/2211.14317), because at five frames a second a small vehicle
moves by most of its own length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from ingest.contract.records import Box, Detection

NOMINAL_FPS = 10.0
"""The pace that the motion model is tuned for; the true times of the frames are given with them."""
LOST_S = 1.5
"""A track without a detection for so long is over: a vehicle behind a pole comes back sooner."""
CONFIRM_FRAMES = 2
"""A single detection is no object yet."""
_BOX_MARGIN = 0.3
"""How far boxes are widened on each side, as a share of their size, before they are compared."""
_MIN_OVERLAP = 0.1
_CERTAIN = 0.5
"""Detections at least this certain are matched first, and may begin a track."""
_FIRM, _FAINT = 1.0, 0.1


@dataclass
class Track:
    """One object on its way. ``name`` is the same after a restart that has read the track's beginning again."""

    name: str
    box: Box
    score: float
    labels: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    held: bool = False
    """Whether it has no detection in this frame, and is taken to stand where it was."""

    @property
    def label(self) -> str:
        """What it was taken for most often, weighted by how certain that was."""
        return max(self.labels, key=lambda label: (self.labels[label], label)) if self.labels else ""


class HeldTrack(NamedTuple):
    """A track that is taken to be in a place; a ``faint`` one only if no detection continues it."""

    track: str
    box: Box
    faint: bool


class Tracker(Protocol):
    """Follows objects through the frames of one camera and lane, in order. Pure; single-threaded."""

    def step(
        self, detections: Sequence[Detection], at_s: float, frame: str, holds: Sequence[HeldTrack] = ()
    ) -> list[Track]:
        """Return the confirmed tracks that have a detection in this frame or are held, in the order of their names.

        ``at_s`` is the frame's time in seconds, larger than that of the frame before; ``frame`` names it, and a
        track is named after the frame that confirmed it and the place of its detection there. So two objects never
        share a name, also when one of them has another name after a restart that did not see its beginning. What is
        held begins no track, and says nothing about what its track is.
        """
        ...


class ByteTracker:
    """ByteTrack."""

    def __init__(self) -> None:
        from trackers import BIoU, ByteTrackTracker

        self._library = ByteTrackTracker(
            lost_track_buffer=round(LOST_S * 30),  # it counts in frames of a 30 Hz camera
            frame_rate=NOMINAL_FPS,
            track_activation_threshold=_CERTAIN,
            minimum_consecutive_frames=CONFIRM_FRAMES,
            minimum_iou_threshold=_MIN_OVERLAP,
            high_conf_det_threshold=_CERTAIN,
            iou=BIoU(buffer_ratio=_BOX_MARGIN),
        )
        self._tracks: dict[int, Track] = {}
        self._seen_s: dict[int, float] = {}

    def step(
        self, detections: Sequence[Detection], at_s: float, frame: str, holds: Sequence[HeldTrack] = ()
    ) -> list[Track]:
        """Return the confirmed tracks that have a detection in this frame or are held."""
        import supervision

        boxes = [d.box for d in detections] + [hold.box for hold in holds]
        scores = [d.score for d in detections] + [_FAINT if hold.faint else _FIRM for hold in holds]
        given = supervision.Detections(
            xyxy=np.array(boxes, np.float32).reshape(-1, 4),
            confidence=np.array(scores, np.float32),
            data={"index": np.arange(len(boxes))},
        )
        found = self._library.update(given, timestamp=at_s)
        numbers = found.tracker_id if found.tracker_id is not None else ()
        pairs = zip(numbers, found.data.get("index", ()), strict=True)
        matched = sorted((int(index), int(number)) for number, index in pairs if number >= 0)
        count = len(detections)
        seen = [
            self._note(number, detections[index], at_s, f"{frame}-{index}")
            for index, number in matched
            if index < count
        ]
        held = [self._hold(number, holds[index - count], at_s) for index, number in matched if index >= count]
        self._forget(at_s)
        return sorted([*seen, *filter(None, held)], key=lambda track: track.name)

    def _hold(self, number: int, hold: HeldTrack, at_s: float) -> Track | None:
        track = self._tracks.get(number)
        if track is None or track.name != hold.track:
            return None
        track.box, track.held, self._seen_s[number] = hold.box, True, at_s
        return track

    def _note(self, number: int, detection: Detection, at_s: float, name: str) -> Track:
        track = self._tracks.get(number)
        if track is None:
            track = self._tracks[number] = Track(name, detection.box, detection.score)
        track.box, track.score = detection.box, detection.score
        track.labels[detection.label] += max(1, round(detection.score * 100))
        track.frames += 1
        track.held = False
        self._seen_s[number] = at_s
        return track

    def _forget(self, now_s: float) -> None:
        for number in [n for n, seen_s in self._seen_s.items() if now_s - seen_s > 2 * LOST_S]:
            del self._tracks[number], self._seen_s[number]
