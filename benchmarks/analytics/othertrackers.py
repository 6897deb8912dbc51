"""Trackers of two libraries, adapted to the interface of Sightline's tracker for a comparison.

The libraries are no part of Sightline: install ``trackers==2.6.1`` and ``norfair==2.3.0`` into an environment of
their own, and run ``python -m benchmarks.analytics --trackers`` there. A library that is not installed is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from ingest.contract.records import Detection
from stream.analyse.tracking.tracker import (
    BEGIN_SCORE,
    CONFIRM_FRAMES,
    LOST_S,
    ByteTracker,
    HeldTrack,
    Track,
    Tracker,
)

_MARGIN, _MIN_OVERLAP = 0.3, 0.1
"""Margin of boxes and minimum overlap, equal to those of Sightline's tracker."""
_FPS = 10.0


class LibraryTracker:
    """A tracker of a library. ``find`` returns the number of the track of each detection, or -1."""

    def __init__(self, find: Callable[[Sequence[Detection], float], Sequence[int]]) -> None:
        self._find = find
        self._tracks: dict[int, Track] = {}

    def step(
        self, detections: Sequence[Detection], at_s: float, frame: str, held: Sequence[HeldTrack] = ()
    ) -> list[Track]:
        """Return the tracks of the detections. A track in ``held`` is ignored, because the libraries cannot hold a
        track without a detection."""
        found = []
        for index, (number, one) in enumerate(zip(self._find(detections, at_s), detections, strict=True)):
            if number < 0:
                continue
            track = self._tracks.setdefault(number, Track(f"{frame}-{index}", one.box, one.score))
            track.box, track.score, track.best_score = one.box, one.score, max(track.best_score, one.score)
            track.labels[one.label] += max(1, round(100 * one.score))
            found.append(track)
        return sorted(found, key=lambda track: track.name)

    def followed(self) -> set[str]:
        """Return the names of all tracks so far, because the libraries do not tell which tracks have ended."""
        return {track.name for track in self._tracks.values()}


def _trackers(kind: str, begin_score: float) -> Tracker:
    supervision, trackers = import_module("supervision"), import_module("trackers")

    common: dict[str, Any] = {
        "lost_track_buffer": round(LOST_S * 30),
        "frame_rate": _FPS,
        "minimum_consecutive_frames": CONFIRM_FRAMES,
        "minimum_iou_threshold": _MIN_OVERLAP,
        "iou": trackers.BIoU(buffer_ratio=_MARGIN),
    }
    match kind:
        case "ByteTrack":
            both = {"track_activation_threshold": begin_score, "high_conf_det_threshold": begin_score}
            library = trackers.ByteTrackTracker(**common, **both)
        case "SORT":
            library = trackers.SORTTracker(**common, track_activation_threshold=begin_score)
        case _:
            library = trackers.OCSORTTracker(**common, high_conf_det_threshold=begin_score)

    def find(detections: Sequence[Detection], at_s: float) -> Sequence[int]:
        given = supervision.Detections(
            xyxy=np.array([one.box for one in detections], np.float32).reshape(-1, 4),
            confidence=np.array([one.score for one in detections], np.float32),
            data={"index": np.arange(len(detections))},
        )
        found, numbers = library.update(given, timestamp=at_s), [-1] * len(detections)
        ids = found.tracker_id if found.tracker_id is not None else ()
        for number, index in zip(ids, found.data.get("index", ()), strict=True):
            numbers[int(index)] = int(number)
        return numbers

    return LibraryTracker(find)


def _norfair(begin_score: float) -> Tracker:
    norfair = import_module("norfair")

    library = norfair.Tracker(
        distance_function="iou",
        distance_threshold=1.0 - _MIN_OVERLAP,
        hit_counter_max=round(LOST_S * _FPS),
        initialization_delay=CONFIRM_FRAMES - 1,
    )
    last_s = [0.0]

    def find(detections: Sequence[Detection], at_s: float) -> Sequence[int]:
        likely = [n for n, one in enumerate(detections) if one.score >= begin_score]
        given = [norfair.Detection(np.array(detections[n].box).reshape(2, 2), data=n) for n in likely]
        period = max(1, round((at_s - last_s[0]) * _FPS))
        last_s[0] = at_s
        numbers = [-1] * len(detections)
        for one in library.update(given, period=period):
            if any(one.last_detection is each for each in given):
                numbers[int(one.last_detection.data)] = int(one.id)
        return numbers

    return LibraryTracker(find)


def installed() -> dict[str, Callable[[float], Tracker]]:
    """Return a factory for each tracker whose library is installed, by the name of the tracker. A tracker's factory
    takes the minimum score that begins a track."""
    found: dict[str, Callable[[float], Tracker]] = {"Sightline": ByteTracker}
    if find_spec("trackers"):
        for kind in ("ByteTrack", "SORT", "OC-SORT"):
            found[f"trackers, {kind}"] = lambda begin=BEGIN_SCORE, kind=kind: _trackers(kind, begin)  # type: ignore[misc]
    if find_spec("norfair"):
        found["norfair"] = _norfair
    return found
