"""Rule ``running``, which reports that a person runs. Pure.

The speed is measured in the person's own heights per second, so the rule needs no ground plane. The speed of the
box's centre in pixels is divided by the box's height, so a box that only grows has no speed. A person of 1.75 m who
walks at 1.4 m/s moves by 0.8 heights per second. A person who runs at 3.5 m/s moves by 2 heights per second.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ingest.site.entry import Seconds
from stream.analyse.lasting import LastingWatch
from stream.analyse.motion import SpeedMeter, in_picture
from stream.analyse.rule import AreaRule, Scene, SceneHappening, SceneTrack

GOES_ON = 0.8
"""After a run was reported, the run lasts while the speed is above this share of the rule's limit. If the limit did
not fall after the report, a person whose speed varies around the limit would be reported again and again."""


class RunningRule(AreaRule):
    """Report once when an object has moved by more than ``above`` times its own height per second for ``for_s``.

    The speed is measured over ``window_s``. Only the movement across the picture counts.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.person.running"

    type: Literal["running"] = "running"
    labels: tuple[str, ...] = ("person",)
    above: float = Field(default=1.6, gt=0.0)
    window_s: float = Field(default=1.0, ge=0.2, le=10.0)
    for_s: Seconds = 0.5

    def watch(self, width: int, height: int) -> RunningWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return RunningWatch(self, width, height, self.for_s)


class RunningWatch(LastingWatch[RunningRule]):
    """State of the rule: the latest positions of each track, and the tracks that are running."""

    def __init__(self, rule: RunningRule, width: int, height: int, for_s: float) -> None:
        super().__init__(rule, width, height, for_s)
        self._meter = SpeedMeter(rule.window_s, in_picture)
        self._speeds: dict[str, float] = {}

    def holds(self, track: SceneTrack, scene: Scene) -> bool:
        """Return whether a track inside the polygon is faster than the rule's limit, by more than the speed's error.

        Once the run is reported, the limit is multiplied by ``GOES_ON``, and frames in which the speed is unknown do
        not end the run.
        """
        self._meter.note(track, scene)
        if not self.covers(track.box.centre):
            return False
        speed = self._meter.speed(track.name)
        if speed is None:
            return self.is_reported(track.name)
        height_px = max(track.box.height, 1.0)
        self._speeds[track.name] = speed.m_s / height_px
        limit = self.rule.above * (GOES_ON if self.is_reported(track.name) else 1.0)
        return (speed.m_s - speed.error_m_s) / height_px > limit

    def happening(self, track: SceneTrack, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for a track that has run for ``lasted_s`` seconds."""
        speed = self._speeds[track.name]
        summary = f"{track.label} runs in {self.rule.name}: {speed:.1f} heights per second"
        details = {"heights_per_s": round(speed, 2), "lasted_s": round(lasted_s, 3)}
        return SceneHappening(track=track, summary=summary, details=details)

    def resume(self, track: str) -> None:
        """Measure the speed of a returning track anew."""
        self._meter.forget(track)
        self.interrupt(track)

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        self._meter.forget(track)
        self._speeds.pop(track, None)
