"""The recent boxes of tracks, and the probability of a behaviour that a behaviour model computes from the boxes.

Pure, apart from the inference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from ingest.contract.records import Box
from stream.analyse.behaviour.model import BehaviourModel
from stream.analyse.behaviour.window import SPAN_S, Floats, windows
from stream.analyse.rule import Scene, SceneTrack

KEPT_NS = 100_000_000
"""Interval in ns of which at most one box of a track is kept: half the distance of a window's samples."""
EVERY_NS = 400_000_000
"""Interval in ns in which the probabilities of behaviours are computed once. The intervals are counted by capture
time, so that a restarted worker computes the probabilities in the same frames."""
MIN_SEEN_S = 2.5
"""Time in seconds that a track must have been seen before its behaviour is judged. In training, tracks of walking or
loitering people are never shorter. The models classify nearly every walking person of a shorter track as running."""
_DIGITS = 4
"""Number of decimal places of a probability. Further digits depend on how many tracks are computed together."""

_CAPACITY = 2 * (round(SPAN_S * 1e9 / KEPT_NS) + 2)
"""Twice the number of boxes that a window needs, so that boxes are seldom moved to the beginning of the buffer."""


class RecentBoxes:
    """The boxes of one track in the last ``SPAN_S`` seconds, and the last box before that time."""

    def __init__(self) -> None:
        self._rows = np.empty((_CAPACITY, 5))
        self._begin = self._end = 0
        self._interval = -1

    @property
    def array(self) -> Floats:
        """The kept boxes ``(N, 5)``: time in s, left, top, right, bottom."""
        return self._rows[self._begin : self._end]

    @property
    def lasted_s(self) -> float:
        """Time from the first to the last kept box, in seconds."""
        return float(self._rows[self._end - 1, 0] - self._rows[self._begin, 0])

    def add(self, at_s: float, box: Box, interval: int) -> None:
        """Add the next box of the track. If the last two boxes are in one interval of ``KEPT_NS``, only the later one
        is kept."""
        if interval == self._interval:
            self._end -= 1
        elif self._end == _CAPACITY:
            kept = self.array[-_CAPACITY // 2 :].copy()
            self._begin, self._end = 0, len(kept)
            self._rows[: self._end] = kept
        self._interval = interval
        self._rows[self._end] = at_s, *box
        self._end += 1
        while self._end - self._begin > 1 and self._rows[self._begin + 1, 0] <= at_s - SPAN_S:
            self._begin += 1


class Behaviours:
    """The latest probabilities of one behaviour for the tracks of a camera."""

    def __init__(self, model: BehaviourModel, behaviour: str) -> None:
        self._model, self._column = model, model.labels.index(behaviour)
        self._boxes: defaultdict[str, RecentBoxes] = defaultdict(RecentBoxes)
        self._found: dict[str, float] = {}
        self._interval = -1

    def step(self, scene: Scene, tracks: Iterable[SceneTrack]) -> None:
        """Note the boxes of the tracks in a frame. In the first frame of each interval, compute the probabilities of
        the behaviour."""
        shown = list(tracks)
        for track in shown:
            self._boxes[track.name].add(scene.at_ns / 1e9, track.box, scene.captured_ns // KEPT_NS)
        before, self._interval = self._interval, scene.captured_ns // EVERY_NS
        if before == self._interval:
            return
        judged = [track.name for track in shown if self._boxes[track.name].lasted_s >= MIN_SEEN_S]
        if judged:
            shown_boxes = [self._boxes[name].array for name in judged]
            found = self._model.probabilities(windows(shown_boxes, scene.width, scene.height))[:, self._column]
            self._found |= {name: round(float(one), _DIGITS) for name, one in zip(judged, found, strict=True)}

    def probability(self, track: str) -> float | None:
        """Return the latest probability of the behaviour for a track; None if no probability has been computed
        yet."""
        return self._found.get(track)

    def forget(self, track: str) -> None:
        """Drop the boxes and the probability of a track that has ended."""
        self._boxes.pop(track, None)
        self._found.pop(track, None)
