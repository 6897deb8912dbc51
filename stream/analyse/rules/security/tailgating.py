"""Rule ``tailgating``, which reports that an object follows another object across a line too closely. Pure.

Persons too close at a door are tailgating; vehicles too close have a short headway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from ingest.site.entry import PositiveSeconds
from stream.analyse.crossing import CrossingRule, CrossingWatch, TrackCrossing
from stream.analyse.rule import Scene, SceneHappening


class TailgatingRule(CrossingRule):
    """Report each object that crosses the line less than ``within_s`` after another object, in the same direction."""

    EVENT_TYPE: ClassVar[str] = "sightline.line.tailgating"

    type: Literal["tailgating"] = "tailgating"
    within_s: PositiveSeconds

    def watch(self, width: int, height: int) -> TailgatingWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return TailgatingWatch(self, width, height)


class TailgatingWatch(CrossingWatch[TailgatingRule]):
    """State of the rule: the time and track of the last crossing in each direction."""

    def __init__(self, rule: TailgatingRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._last: dict[str, tuple[int, str]] = {}

    def resume(self, track: str) -> None:
        """Ignore a crossing while a returning track was out of sight, because its time is unknown."""
        self._counter.forget(track)

    def crossed(self, crossing: TrackCrossing, scene: Scene) -> Iterator[SceneHappening]:
        """Return the situation to report if a crossing follows the crossing of another object too closely.

        A crossing is processed late if the label or score of its track was unknown, so it may have happened before
        the crossing that was processed before it.
        """
        name, direction = crossing.track.name, crossing.direction
        last_ns, last_track = self._last.get(direction, (None, ""))
        if last_ns is None or crossing.at_ns >= last_ns:
            self._last[direction] = crossing.at_ns, name
        if last_ns is None or last_track == name or crossing.quiet:
            return
        headway_s = abs(crossing.at_ns - last_ns) / 1e9
        if headway_s < self.rule.within_s:
            order = "after" if crossing.at_ns >= last_ns else "before"
            yield SceneHappening(
                track=crossing.track,
                summary=f"{crossing.track.label} crossed {self.rule.name} {headway_s:.1f} s {order} another object",
                details={"headway_s": round(headway_s, 3), "direction": direction},
            )
