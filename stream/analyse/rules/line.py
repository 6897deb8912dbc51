"""Rule ``line``, which reports that an object has crossed a line, and in which direction. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from stream.analyse.crossing import CrossingRule, CrossingWatch, TrackCrossing
from stream.analyse.rule import Scene, SceneHappening


class LineRule(CrossingRule):
    """Report each crossing of the line from ``start`` to ``end``."""

    EVENT_TYPE: ClassVar[str] = "sightline.line.crossed"

    type: Literal["line"] = "line"

    def watch(self, width: int, height: int) -> LineWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return LineWatch(self, width, height)


class LineWatch(CrossingWatch[LineRule]):
    """State of a line rule. A crossing during the cooldown of its track is not reported."""

    def crossed(self, crossing: TrackCrossing, scene: Scene) -> Iterator[SceneHappening]:
        """Return the event's summary and details for a crossing."""
        if not crossing.quiet:
            summary = f"{crossing.track.label} crossed {self.rule.name} going {crossing.direction}"
            yield SceneHappening(track=crossing.track, summary=summary, details={"direction": crossing.direction})
