"""Rule ``speed``, which reports that a vehicle is too fast, measured on the camera's ground plane. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from ingest.contract.records import Point
from stream.analyse.ground import Speed
from stream.analyse.motion import SpeedMeter, on_ground
from stream.analyse.rule import AreaRule, RuleWatch, Scene, SceneHappening, SceneTrack

CERTAIN = 2.0
"""Number of standard errors by which a speed must exceed the limit. With two standard errors, about one in forty
vehicles that drive exactly at the limit is reported."""


class SpeedRule(AreaRule):
    """Report each object once if it is faster than ``above_km_h`` by more than ``CERTAIN`` standard errors.

    The speed is measured over ``window_s``. The camera needs a ground plane.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.speed.exceeded"
    CAMERA_NEEDS: ClassVar[tuple[str, ...]] = ("ground",)

    type: Literal["speed"] = "speed"
    above_km_h: float = Field(gt=0.0)
    window_s: float = Field(default=1.0, ge=0.2, le=30.0)

    def watch(self, width: int, height: int) -> SpeedWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return SpeedWatch(self, width, height)


class SpeedWatch(RuleWatch[SpeedRule]):
    """State of the rule: the latest positions of each track, and the tracks that are reported."""

    PER_TRACK = True

    def __init__(self, rule: SpeedRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._meter = SpeedMeter(rule.window_s, on_ground)
        self._reported: set[str] = set()

    def place(self, track: SceneTrack) -> Point:
        """Return the point at which a track stands on the ground."""
        return track.foot

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame and return the tracks that are too fast now."""
        for track in scene.tracks:
            self._meter.note(track, scene)
            if track.name in self._reported or not self.covers(self.place(track)) or not self.rule.applies_to(track):
                continue
            speed = self._meter.speed(track.name)
            if speed and self._exceeds(speed) and not self.is_quiet(scene, track.name):
                self._reported.add(track.name)
                error_km_h, limit = 3.6 * speed.error_m_s, f"limit {self.rule.above_km_h:g} km/h"
                fast = f"{track.label} at {speed.km_h:.0f} ± {CERTAIN * error_km_h:.0f} km/h"
                yield SceneHappening(
                    track=track,
                    summary=f"{fast} in {self.rule.name}, {limit}",
                    details={"speed_km_h": round(speed.km_h, 1), "error_km_h": round(error_km_h, 2)},
                )

    def unmet(self, scene: Scene, track: SceneTrack) -> str:
        """Return in words that a track is outside of the polygon, or was already reported."""
        return super().unmet(scene, track) or ("already reported" if track.name in self._reported else "")

    def settle(self, subject: str) -> None:
        """Note that a track has been reported."""
        self._reported.add(subject)

    def resume(self, track: str) -> None:
        """Measure the speed of a returning track anew."""
        self._meter.forget(track)

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        self._meter.forget(track)
        self._reported.discard(track)

    def _exceeds(self, speed: Speed) -> bool:
        return speed.km_h - CERTAIN * 3.6 * speed.error_m_s > self.rule.above_km_h
