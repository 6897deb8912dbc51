"""The Tracker interface, and its implementation ByteTrack.

ByteTrack (Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864) comes from the package ``trackers``. Boxes are
enlarged by a margin before they are compared (Yang et al., 2022, https://arxiv.org/abs/2211.14317). Without a margin,
the boxes of a small vehicle may not overlap from frame to frame: at five frames a second, the vehicle moves by most
of its length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from ingest.contract.records import Box, Detection
from stream.analyse.tracking.votes import AttributeVotes

NOMINAL_FPS = 10.0
"""Frame rate for which the motion model is tuned. The tracker also gets the time of each frame, and therefore works
at other frame rates."""
LOST_S = 1.5
"""Time without a detection after which a track ends. A vehicle that passes behind a pole is visible again before this
time is over."""
CONFIRM_FRAMES = 2
"""Number of detections that confirm a track. A single detection may be false."""
_BOX_MARGIN = 0.3
"""Margin added to each side of a box before boxes are compared, as a share of the box's size."""
_MIN_OVERLAP = 0.1
BEGIN_SCORE = 0.5
"""Minimum score of a detection that begins a track. A rule with a lower ``min_score`` lowers this minimum for the
rule's pipeline."""
_LEAST = 0.01
"""Lowest value that a rule can set for the minimum score of a detection that begins a track. A faint held track has a
score of 0, below this value, and therefore never begins a new track."""
_FIRM, _FAINT = 1.0, 0.0


@dataclass
class Track:
    """One tracked object. A track keeps its name after a restart if the frames of the track's beginning are read
    again."""

    name: str
    box: Box
    score: float
    labels: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    held: bool = False
    """Whether the track has no detection in this frame, and its object is assumed not to have moved."""
    votes: AttributeVotes = field(default_factory=AttributeVotes, compare=False)
    """Votes over the attribute labels that second models gave to the track's detections."""

    @property
    def label(self) -> str:
        """The track's most frequent label so far, weighted by score."""
        return max(self.labels, key=lambda label: (self.labels[label], label)) if self.labels else ""


class HeldTrack(NamedTuple):
    """A track without a detection in this frame, whose object is assumed to be still in its place.

    A ``faint`` track is held only if no detection continues the track.
    """

    track: str
    box: Box
    faint: bool


class Tracker(Protocol):
    """A tracker of the objects in the frames of one camera and one lane (live, late or a replay).

    Callers pass frames in the order of capture. Pure; single-threaded.
    """

    def step(
        self, detections: Sequence[Detection], at_s: float, frame: str, held: Sequence[HeldTrack] = ()
    ) -> list[Track]:
        """Return the confirmed tracks that have a detection in this frame or are held, in the order of their names.

        ``at_s`` is the frame's time in seconds, and must be larger than the time of the previous frame. ``frame`` is
        the frame's name. A track's name is unique: the name of the frame that confirmed the track, and the index of
        the track's detection in that frame. After a restart, a track gets another name if the frames of the track's
        beginning are not read again. A held track never begins a new track, and keeps its label and score.
        """


class ByteTracker:
    """ByteTrack with boxes that are enlarged before they are compared.

    Detections with a score of at least ``begin_score`` are matched to tracks first, and may begin a track. Detections
    with a lower score can only continue a track.
    """

    def __init__(self, begin_score: float = BEGIN_SCORE) -> None:
        from trackers import BIoU, ByteTrackTracker

        begin_score = max(begin_score, _LEAST)
        self._library = ByteTrackTracker(
            lost_track_buffer=round(LOST_S * 30),  # the library expects this time as a number of frames at 30 Hz
            frame_rate=NOMINAL_FPS,
            track_activation_threshold=begin_score,
            minimum_consecutive_frames=CONFIRM_FRAMES,
            minimum_iou_threshold=_MIN_OVERLAP,
            high_conf_det_threshold=begin_score,
            iou=BIoU(buffer_ratio=_BOX_MARGIN),
        )
        self._tracks: dict[int, Track] = {}
        self._seen_s: dict[int, float] = {}

    def step(
        self, detections: Sequence[Detection], at_s: float, frame: str, held: Sequence[HeldTrack] = ()
    ) -> list[Track]:
        """Return the confirmed tracks that have a detection in this frame or are held."""
        import supervision

        boxes = [d.box for d in detections] + [one.box for one in held]
        scores = [d.score for d in detections] + [_FAINT if one.faint else _FIRM for one in held]
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
        kept = [self._hold(number, held[index - count], at_s) for index, number in matched if index >= count]
        self._forget(at_s)
        return sorted([*seen, *filter(None, kept)], key=lambda track: track.name)

    def _hold(self, number: int, held: HeldTrack, at_s: float) -> Track | None:
        track = self._tracks.get(number)
        if track is None or track.name != held.track:
            return None
        track.box, track.held, self._seen_s[number] = held.box, True, at_s
        return track

    def _note(self, number: int, detection: Detection, at_s: float, name: str) -> Track:
        track = self._tracks.get(number)
        if track is None:
            track = self._tracks[number] = Track(name, detection.box, detection.score)
        track.box, track.score = detection.box, detection.score
        track.labels[detection.label] += max(1, round(detection.score * 100))
        track.votes.add(detection.attributes)
        track.frames += 1
        track.held = False
        self._seen_s[number] = at_s
        return track

    def _forget(self, now_s: float) -> None:
        for number in [n for n, seen_s in self._seen_s.items() if now_s - seen_s > 2 * LOST_S]:
            del self._tracks[number], self._seen_s[number]
