"""Rule ``red_light``, which reports that an object crosses a line while a sensor says that the signal is red.
Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from stream.analyse.crossing import CrossingRule, CrossingWatch, TrackCrossing
from stream.analyse.rule import Scene, SceneHappening, SceneTrack
from stream.join.rule import JoinedSeconds, JoinRule


class RedLightRule(CrossingRule, JoinRule):
    """Report each crossing of the line from ``start`` to ``end`` that is at least ``grace_s`` after the sensor's
    condition began to hold.

    The time of the crossing is interpolated between two frames, and compared with the times of the sensor's readings.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.signal.red"
    IS_LASTING: ClassVar[bool] = False

    type: Literal["red_light"] = "red_light"
    grace_s: JoinedSeconds = 0.5

    @property
    def joined_for_s(self) -> float:
        """Time in seconds for which the signal must have been red."""
        return self.grace_s

    def watch(self, width: int, height: int) -> RedLightWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return RedLightWatch(self, width, height)


class RedLightWatch(CrossingWatch[RedLightRule]):
    """State of the rule: the crossings of the line."""

    def crossed(self, crossing: TrackCrossing, scene: Scene) -> Iterator[SceneHappening]:
        """Return the crossing as a candidate event, which is reported if the sensor shows that the signal was red."""
        if not crossing.quiet:
            yield SceneHappening(
                track=crossing.track,
                summary=f"{crossing.track.label} crossed {self.rule.name} going {crossing.direction}",
                details={"direction": crossing.direction},
                since_ns=max(0, scene.captured_ns - (scene.at_ns - crossing.at_ns)),
            )

    def resume(self, track: str) -> None:
        """Ignore a crossing while a returning track was out of sight, because its time is unknown."""
        self._counter.forget(track)

    def unmet(self, scene: Scene, track: SceneTrack) -> str:
        """Return where a track is beside the line; for a track that has just crossed it, return that the sensor
        decides."""
        return super().unmet(scene, track) or f"crossed in this frame; sensor {self.rule.sensor} decides"
