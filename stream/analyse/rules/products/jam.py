"""Rule ``jam``, which reports that nothing passes a line although a sensor says that the belt runs. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar, Literal

from stream.analyse.crossing import CrossingRule, line_counter
from stream.analyse.rule import Scene, SceneHappening
from stream.join.rule import JoinedSeconds, JoinRule, LastingJoinWatch


class JamRule(CrossingRule, JoinRule):
    """Report once when, for ``for_s``, no object has crossed the line while the sensor's condition has held.

    A jam is reported again after an object has crossed the line, or after the sensor's condition was not met, for
    example because the belt stood still.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.product.jam"

    type: Literal["jam"] = "jam"
    for_s: JoinedSeconds = 60.0

    @property
    def joined_for_s(self) -> float:
        """Time in seconds for which nothing may cross the line while the sensor's condition holds, before the jam is
        reported."""
        return self.for_s

    def watch(self, width: int, height: int) -> JamWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return JamWatch(self, width, height)


class JamWatch(LastingJoinWatch[JamRule]):
    """State of the rule: since when nothing has crossed the line."""

    def __init__(self, rule: JamRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._counter = line_counter((rule.start, rule.end), width, height)

    def interrupts(self, scene: Scene) -> bool:
        """Return whether an object has crossed the line."""
        moving = [track for track in scene.tracks if not track.at_rest]
        crossed = [(track, self._counter.step(track.name, self.rule.place(track), scene.at_ns)) for track in moving]
        return any(
            direction and self.rule.direction in ("both", direction) and self.rule.applies_to(track)
            for track, direction in crossed
        )

    def catch_up(self, scene: Scene, reported: Collection[str]) -> list[tuple[SceneHappening, int]]:
        """Note whether a track crossed the line while it waited."""
        if self.interrupts(scene):
            self._since_ns = None
        return []

    def summary(self) -> str:
        """Return the text of the event, without the part about the sensor."""
        return f"no {self.rule.subject_words or 'object'} has passed {self.rule.name}"

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        self._counter.forget(track)
