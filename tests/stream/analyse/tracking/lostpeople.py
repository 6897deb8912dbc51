"""People with embeddings, and an analyser that sees them, for tests of re-identification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ingest.contract.records import Box, Detection, Embedding, Event, Result
from ingest.site import AppearanceConfig, MeasureConfig
from stream.analyse.analyser import Analyser
from stream.analyse.rule import CameraRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.tracking.ends import TrackEnd
from stream.analyse.tracking.tracker import ByteTracker
from tests.stream.analyse.results import result_at

FPS = 5
LOOK = "look"
SETTINGS = AppearanceConfig(second_model=LOOK, min_similarity=0.9, min_lead=0.05, window_s=30.0)
OF: dict[str, Any] = {"camera": "c", "pipeline": "p"}
WHOLE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
LINE = LineRule(name="line", **OF, start=(0.5, 1.0), end=(0.5, 0.0))
ZONE = ZoneRule(name="zone", **OF, polygon=WHOLE, dwell_s=8.0)
MEASURE = MeasureConfig(name="line", type="line", **OF, start=LINE.start, end=LINE.end)
HALL = MeasureConfig(name="hall", type="zone", **OF, polygon=WHOLE)
RED, BLUE, GREEN = (1.0, 0.1, 0.0, 0.2), (0.1, 1.0, 0.1, 0.0), (0.0, 0.1, 1.0, 0.1)
COVERED = (0.75, 0.1, 0.65, 0.2)
"""Embedding of a partly covered person, with a similarity of 0.75 to ``RED``."""


def person(x: float, look: Sequence[float] | None, y: float = 180.0, model: str = "m@1") -> Detection:
    """Return the detection of a person with the centre ``(x, y)`` px, and with the embedding ``look`` if given."""
    vector = np.array(look if look is not None else (), np.float64)
    numbers = np.round(127 * vector / np.abs(vector).max()).astype(np.int8) if vector.size else vector
    embeddings = (Embedding(name=LOOK, model=model, values=numbers.tobytes()),) if vector.size else ()
    box = Box(x - 20.0, y - 50.0, x + 20.0, y + 50.0)
    return Detection(box=box, label="person", class_id=0, score=0.9, embeddings=embeddings)


def result(seq: int, *found: Detection, fps: float = FPS, **fields: Any) -> Result:
    return result_at(seq, seq / fps, *found, **fields)


STILL: dict[str, Any] = {"outcome": "empty", "motion": ()}
"""Fields of the result of a frame in which nothing moved."""


class Watched:
    """An analyser, and the names of the tracks in each frame."""

    def __init__(self, *rules: CameraRule, settings: AppearanceConfig | None = SETTINGS, measures: Any = ()) -> None:
        self.analyser = Analyser(rules, None, ByteTracker, measures=measures, appearance=settings)
        self.events: list[Event] = []
        self.ended: list[TrackEnd] = []
        self.seq = -1

    def see(self, *found: Detection, frames: int = 1) -> list[str]:
        """Process frames with the same detections, and return the names of the tracks in the last frame."""
        for _ in range(frames):
            self.seq += 1
            self.step(result(self.seq, *found))
        return [track.name for track in self.analyser.scene.tracks] if self.analyser.scene else []

    def step(self, one: Result) -> None:
        """Process a result."""
        self.events += self.analyser.step(one)
        self.ended += self.analyser.ended

    def walk(self, start: float, stop: float, look: Sequence[float] | None, *others: Detection) -> list[str]:
        """Let a person walk at 100 pixels per second, and return the names of the tracks in the last frame."""
        names, steps = [], max(1, round(abs(stop - start) / 100 * FPS))
        for n in range(steps + 1):
            names = self.see(person(start + (stop - start) * n / steps, look), *others)
        return names

    def wait(self, seconds: float, *found: Detection) -> list[str]:
        """Process frames with the same detections, or none, and return the names of the tracks in the last frame."""
        return self.see(*found, frames=round(seconds * FPS))

    def lose(self, *found: Detection) -> list[str]:
        """Process ten frames with the same detections, and then 5 s without. Return the names of the lost tracks."""
        names = self.see(*found, frames=10)
        self.wait(5.0)
        return names


def with_a_lost_person(*rules: CameraRule, measures: Any = ()) -> Watched:
    """Return an analyser that has lost a person in red."""
    watched = Watched(*rules, measures=measures)
    watched.lose(person(100.0, RED, y=60.0))
    return watched


def cross_the_line(watched: Watched) -> int:
    """Let a covered person cross the line in the middle of the picture, and return the number of the first frame."""
    for x in (280.0, 290.0, 310.0, 330.0, 350.0):
        watched.see(person(x, COVERED))
    return watched.seq - 4


def measured(watched: Watched, config: MeasureConfig) -> dict[str, float]:
    """Return the sums of a measure's current minute."""
    return next(dict(one.clock.sums.sums) for one in watched.analyser._meters if one.config == config)
