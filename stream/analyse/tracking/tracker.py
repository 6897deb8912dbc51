"""The Tracker interface, and its implementation ByteTrack.

The method is ByteTrack (Zhang et al., ECCV 2022, https://arxiv.org/abs/2110.06864), on a Kalman filter for each
box and the assignment solver of ``lapx``. Boxes are enlarged by a margin before they are compared (Yang et al., 2022,
https://arxiv.org/abs/2211.14317). Without a margin, the boxes of a small vehicle may not overlap from frame to frame:
at five frames a second, the vehicle moves by most of its length. Decision 24 compares this tracker with others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import lap
import numpy as np

from ingest.contract.records import Box, Detection
from stream.analyse.tracking.boxfilter import BoxFilter, overlaps
from stream.analyse.tracking.votes import AttributeVotes

LOST_S = 1.5
"""Time in seconds without a detection after which a track ends. A vehicle that passes behind a pole is visible again
within ``LOST_S``."""
CONFIRM_FRAMES = 2
"""Number of detections that confirm a track. A single detection may be false."""
_BOX_MARGIN = 0.3
"""Margin added to each side of a box before boxes are compared, as a share of the box's size."""
_MIN_OVERLAP = 0.1
_MAX_COST = 1.0 - _MIN_OVERLAP
_OTHER_LABEL = 0.2
"""Overlap that a detection loses if its label is not the label of the track. A detector that takes a van for a truck
reports it at the same place, so its overlap stays large enough. A false detection beside a person whom the model
missed does not take over the person's track."""
BEGIN_SCORE = 0.5
"""Minimum score of a detection that begins a track. A rule with a lower ``min_score`` lowers the minimum for the
rule's pipeline."""
_LEAST = 0.01
"""Lowest value that a rule can set for the minimum score of a detection that begins a track. A faint track has a
lower score, 0, and therefore never begins a new track."""
_FIRM, _FAINT = 1.0, 0.0
_MAX_PX = 1e7
"""Largest edge of a box in pixels. The squares of edges in pixels are exact up to ``_MAX_PX``, and no camera has a
larger picture."""


@dataclass
class Track:
    """One tracked object. A track keeps its name after a restart if the frames of the track's beginning are read
    again."""

    name: str
    box: Box
    score: float
    labels: Counter[str] = field(default_factory=Counter)
    frames: int = 0
    best_score: float = 0.0
    """Highest score of the track's detections so far."""
    held: bool = False
    """Whether the track has no detection in this frame, and its object is assumed not to have moved."""
    votes: AttributeVotes = field(default_factory=AttributeVotes, compare=False)
    """Votes over the attribute labels that second-stage models gave to the track's detections."""

    @property
    def label(self) -> str:
        """The track's most frequent label so far, weighted by score."""
        if len(self.labels) < 2:
            return next(iter(self.labels), "")
        return max(self.labels, key=lambda label: (self.labels[label], label))

    def resume(self, earlier: Track) -> None:
        """Continue an earlier track of the same object: take its name, and add its labels, votes, frames and highest
        score."""
        self.name, self.votes = earlier.name, self.votes.after(earlier.votes)
        self.labels = earlier.labels + self.labels
        self.frames += earlier.frames
        self.best_score = max(self.best_score, earlier.best_score)


class HeldTrack(NamedTuple):
    """A track without a detection in this frame, whose object is assumed to be still in its place.

    Detections with a high score are matched before a ``faint`` track is kept without a detection.
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
        """Return the confirmed tracks that have a detection in this frame or are among ``held``, in the order of
        their names.

        ``at_s`` is the frame's time in seconds, and must be larger than the time of the previous frame. ``frame`` is
        the frame's name. A track's name is unique: the name of the frame that confirmed the track, and the index of
        the track's detection in that frame. After a restart, a track gets another name if the frames of the track's
        beginning are not read again. A held track never begins a new track, and keeps its label and score.
        """

    def followed(self) -> set[str]:
        """Return the names of the confirmed tracks that the next frame may continue, also of the tracks without a
        detection in the last frame."""


class ByteTracker:
    """ByteTrack with boxes that are enlarged before they are compared.

    Detections with a score of at least ``begin_score`` are matched to tracks first, and may begin a track. Detections
    with a lower score can only continue a track. Each of the two matchings, of high and of low scores, has the
    largest sum of overlaps.
    """

    def __init__(self, begin_score: float = BEGIN_SCORE) -> None:
        self._begin_score = max(begin_score, _LEAST)
        self._targets: list[_Target] = []
        self._now_s: float | None = None

    def step(
        self, detections: Sequence[Detection], at_s: float, frame: str, held: Sequence[HeldTrack] = ()
    ) -> list[Track]:
        """Return the confirmed tracks that have a detection in this frame or are held."""
        found: list[Detection | HeldTrack] = [*detections, *held]
        _check(one.box for one in found)
        scores = [*(d.score for d in detections), *(_FAINT if one.faint else _FIRM for one in held)]
        self._advance(at_s)
        likely = [column for column, score in enumerate(scores) if score >= self._begin_score]
        matched = self._matched(range(len(self._targets)), likely, found)
        if len(likely) < len(scores):
            left = [row for row in range(len(self._targets)) if row not in matched]
            unlikely = [column for column, score in enumerate(scores) if score < self._begin_score]
            matched |= self._matched(left, unlikely, found)
        tracks: list[Track] = []
        for row, column in matched.items():
            target, one = self._targets[row], found[column]
            target.filter.update(one.box)
            target.seen_s, target.hits = at_s, target.hits + 1
            if isinstance(one, Detection):
                if target.hits >= CONFIRM_FRAMES:
                    tracks.append(_note(target, one, f"{frame}-{column}"))
            elif target.track:  # always true: a held track matches only its own target
                target.track.box, target.track.held = one.box, True
                tracks.append(target.track)
        # a target without a confirmed track needs a detection in each frame
        self._targets = [target for target in self._targets if target.track is not None or target.seen_s == at_s]
        taken = set(matched.values())
        new = [found[column] for column in likely if column not in taken]
        self._targets += [_Target(BoxFilter(one.box), at_s, one.label) for one in new if isinstance(one, Detection)]
        return sorted(tracks, key=lambda track: track.name)

    def followed(self) -> set[str]:
        """Return the names of the confirmed tracks that the next frame may continue."""
        return {target.track.name for target in self._targets if target.track}

    def _advance(self, at_s: float) -> None:
        step_s = at_s - self._now_s if self._now_s is not None else 0.0
        self._now_s = at_s
        self._targets = [target for target in self._targets if at_s - target.seen_s <= LOST_S]
        for target in self._targets:
            target.filter.predict(step_s)

    def _matched(
        self, rows: Sequence[int], columns: Sequence[int], found: Sequence[Detection | HeldTrack]
    ) -> dict[int, int]:
        """Match the targets ``rows`` to the detections and held tracks ``columns`` of ``found``. Return the column of
        each matched row."""
        near: dict[tuple[int, int], float] = {}
        places, others = [self._targets[row].filter.box for row in rows], [found[column].box for column in columns]
        for place, other, overlap in overlaps(places, others, _BOX_MARGIN):
            row, column = rows[place], columns[other]
            cost = 1.0 - overlap + _penalty(self._targets[row], found[column])
            if cost < _MAX_COST:
                near[row, column] = cost
        matched = dict(near.keys())
        if len(set(matched.values())) == len(near):
            return matched  # no box is near two targets, nor a target near two boxes
        return _assigned(near)


@dataclass
class _Target:
    """An object that the tracker follows, with its track once it is confirmed."""

    filter: BoxFilter
    seen_s: float
    label: str
    """The label of the track, or of the first detection."""
    hits: int = 1
    track: Track | None = None


def _penalty(target: _Target, one: Detection | HeldTrack) -> float:
    """Return the overlap that a box loses: some of it for another label, and all of it for another held track."""
    if isinstance(one, HeldTrack):
        return 0.0 if target.track and target.track.name == one.track else 1.0
    return 0.0 if one.label == target.label else _OTHER_LABEL


def _assigned(costs: Mapping[tuple[int, int], float]) -> dict[int, int]:
    """Return the column assigned to each row, for the largest sum of overlaps. ``costs`` has the pairs that may be
    assigned."""
    rows, columns = sorted({row for row, _ in costs}), sorted({column for _, column in costs})
    matrix = np.ones((len(rows), len(columns)))
    for (row, column), cost in costs.items():
        matrix[bisect_left(rows, row), bisect_left(columns, column)] = cost
    _, found, _ = lap.lapjv(matrix, extend_cost=True, cost_limit=_MAX_COST)
    return {row: columns[column] for row, column in zip(rows, found.tolist(), strict=True) if column >= 0}


def _check(boxes: Iterable[Box]) -> None:
    """Raise ValueError for a box that is too large for any picture, or has an edge that is not a number."""
    for box in boxes:
        # edge by edge, because the minimum of the edges ignores a NaN behind a number
        if not all(-_MAX_PX <= edge <= _MAX_PX for edge in box):
            raise ValueError(f"box {tuple(box)}: expected edges of at most {_MAX_PX:g} pixels")


def _note(target: _Target, detection: Detection, name: str) -> Track:
    track = target.track or Track(name, detection.box, detection.score)
    target.track = track
    track.box, track.score = detection.box, detection.score
    track.labels[detection.label] += max(1, round(detection.score * 100))
    if detection.label != target.label:
        target.label = track.label
    track.votes.add(detection.attributes)
    track.best_score = max(track.best_score, detection.score)
    track.frames += 1
    track.held = False
    return track
