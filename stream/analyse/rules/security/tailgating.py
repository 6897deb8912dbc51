"""Rule ``tailgating``, which reports that an object follows another one through a line too closely. Pure.

With persons and a door, this is tailgating; with vehicles, it is a short headway.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from stream.analyse.crossing import CrossingRule, CrossingWatch, TrackCrossing
from stream.analyse.rule import Scene, SceneHappening


class TailgatingRule(CrossingRule):
    """Report each object that crosses the line less than ``within_s`` after another one, in the same direction."""

    EVENT_TYPE: ClassVar[str] = "sightline.line.tailgating"

    type: Literal["tailgating"] = "tailgating"
    within_s: float = Field(gt=0.0)

    def watch(self, width: int, height: int) -> TailgatingWatch:
        """Return a new state of the rule for pictures of ``width`` × ``height`` pixels."""
        return TailgatingWatch(self, width, height)


class TailgatingWatch(CrossingWatch[TailgatingRule]):
    """State of the rule: the last crossing in each direction."""

    def __init__(self, rule: TailgatingRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._last_ns: dict[str, float] = {}

    def crossed(self, crossing: TrackCrossing, scene: Scene) -> Iterator[SceneHappening]:
        """Return the happening of a crossing that follows the previous one too closely."""
        headway_s = (crossing.at_ns - self._last_ns.get(crossing.direction, -math.inf)) / 1e9
        self._last_ns[crossing.direction] = crossing.at_ns
        if headway_s < self.rule.within_s and not crossing.quiet:
            yield SceneHappening(
                track=crossing.track,
                summary=f"{crossing.track.label} crossed {self.rule.name} {headway_s:.1f} s after another object",
                details={"headway_s": round(headway_s, 3), "direction": crossing.direction},
            )
