"""The operators that the peers' programs share: sums of readings by window, a threshold, and a line counter. Pure."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.series import FPS, HYSTERESIS, LATENESS_S, LIMIT, LINE_X, WINDOW_S

Sums = dict[str, float]
_WINDOW_MS = WINDOW_S * 1000
_LATENESS_MS = LATENESS_S * 1000


def read_arguments() -> Namespace:
    """Return the options of a peer's program. ``how`` is the name of the operator, and ``batch`` the maximum number
    of messages that the program handles at once."""
    parser = ArgumentParser()
    for name in ("bootstrap", "source", "target", "group", "how"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--batch", type=int, default=1)
    return parser.parse_args()


def sums(readings: Mapping[str, Sequence[float]]) -> list[Sums]:
    """Return time in ms, count and sum of the readings of a record, for each window of the record."""
    found: dict[int, Sums] = {}
    for time_ns, value in zip(readings["times_ns"], readings["values"], strict=True):
        time_ms = int(time_ns) // 1_000_000
        part = found.setdefault(time_ms // _WINDOW_MS, {"t": time_ms, "n": 0, "s": 0.0})
        part["n"] += 1
        part["s"] += value
    return list(found.values())


def single(readings: Mapping[str, Sequence[float]]) -> Sums:
    """Return time in ms, count and sum of the only reading of a record."""
    return {"t": int(readings["times_ns"][0]) // 1_000_000, "n": 1, "s": readings["values"][0]}


def add(total: list[float], part: Sums) -> list[float]:
    """Add a column's count and sum of readings to the count and sum of their window."""
    return [total[0] + part["n"], total[1] + part["s"]]


class SensorWindows:
    """The open windows of one sensor, in memory, for a framework without windows. A window waits for late readings
    as Sightline's windows do."""

    def __init__(self) -> None:
        self._open: dict[int, list[float]] = {}
        self._latest_ms = 0.0

    def add(self, parts: Sequence[Sums]) -> list[dict[str, float]]:
        """Add sums of readings, and return start and mean of the windows that they close above the limit."""
        for part in parts:
            time_ms = part["t"]
            start = int(time_ms) // _WINDOW_MS * _WINDOW_MS
            self._open[start] = add(self._open.get(start, [0, 0.0]), part)
            self._latest_ms = max(self._latest_ms, time_ms)
        if len(self._open) == 1:
            return []
        bound_ms = self._latest_ms - _WINDOW_MS - _LATENESS_MS
        closed = [(start, *self._open.pop(start)) for start in sorted(self._open) if start <= bound_ms]
        means = [{"start": start, "mean": total / count} for start, count, total in closed]
        return [one for one in means if one["mean"] > LIMIT]


def exceeds(value: float, *, was_above: bool) -> bool:
    """Return whether a reading is above the limit, or is not clearly below it after a reading above it."""
    return value > (LIMIT - HYSTERESIS if was_above else LIMIT)


class ByteTrackCounter:
    """Tracks the objects of one camera by ByteTrack of the library ``trackers``, and counts crossings of a vertical
    line. A track has crossed the line if two boxes in a row are on the other side."""

    def __init__(self) -> None:
        import numpy as np
        import supervision
        import trackers

        self._array, self._detections = np.array, supervision.Detections
        self._tracker = trackers.ByteTrackTracker(
            frame_rate=FPS, minimum_consecutive_frames=2, track_activation_threshold=0.5, high_conf_det_threshold=0.5
        )
        self._sides: dict[int, tuple[bool, int]] = {}

    def step(self, frame: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Process the boxes of a frame, and return the crossings that they complete."""
        rows = [(*one["box"], one["score"]) for one in frame["detections"]]
        boxes = self._array(rows, "float32").reshape(-1, 5)
        found = self._tracker.update(
            self._detections(xyxy=boxes[:, :4], confidence=boxes[:, 4]), timestamp=frame["captured_ns"] / 1e9
        )
        if found.tracker_id is None:
            return []
        events = []
        for number, box in zip(found.tracker_id.tolist(), found.xyxy.tolist(), strict=True):
            if number < 0:
                continue  # the track is not confirmed
            right = box[0] + box[2] > 2 * LINE_X
            side, beyond = self._sides.get(number, (right, 0))
            beyond = beyond + 1 if right != side else 0
            if beyond == 2:
                direction = "right" if right else "left"
                events.append({"camera": frame["camera"], "t": frame["captured_ns"], "direction": direction})
                side, beyond = right, 0
            self._sides[number] = side, beyond
        return events
