"""Rule ``section``, which reports that an object was too fast on average between two lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from ingest.site.entry import PositiveSeconds, RelativeLine, RelativePoint
from stream.analyse.crossing import line_counter
from stream.analyse.rule import CameraRule, RuleWatch, Scene, SceneHappening, SceneTrack


class SectionRule(CameraRule):
    """Report each object whose average speed from line ``first`` to line ``second`` is above ``above_km_h``.

    ``distance_m`` is the length of the road between the two lines. The times of the two crossings are interpolated
    between frames. An object that takes longer than ``within_s`` is not measured.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.section.speed"

    type: Literal["section"] = "section"
    first: RelativeLine
    second: RelativeLine
    distance_m: float = Field(gt=0.0)
    above_km_h: float = Field(ge=0.0)
    within_s: PositiveSeconds = 60.0

    @property
    def shape(self) -> tuple[RelativePoint, ...]:
        """The section between the two lines, as a polygon."""
        return (*self.first, *self.second[::-1])

    def watch(self, width: int, height: int) -> SectionWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return SectionWatch(self, width, height)


class SectionWatch(RuleWatch[SectionRule]):
    """State of the rule: the counters of both lines, and when each track passed the first line."""

    PER_TRACK = True

    def __init__(self, rule: SectionRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._lines = [line_counter(line, width, height) for line in (rule.first, rule.second)]
        self._entered_ns: dict[str, int] = {}

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame and return the objects that leave the section too fast."""
        first, second = self._lines
        for track in scene.tracks:
            if track.at_rest:
                continue
            if first.step(track.name, track.box.centre, scene.at_ns):
                self._entered_ns[track.name] = first.passed_ns(track.name)
            if not second.step(track.name, track.box.centre, scene.at_ns) or track.name not in self._entered_ns:
                continue
            took_s = (second.passed_ns(track.name) - self._entered_ns.pop(track.name)) / 1e9
            if not 0.0 < took_s <= self.rule.within_s:
                continue
            speed_km_h = 3.6 * self.rule.distance_m / took_s
            reported = speed_km_h > self.rule.above_km_h and self.rule.applies_to(track)
            if reported and not self.is_quiet(scene, track.name):
                yield SceneHappening(
                    track=track,
                    summary=f"{track.label} at {speed_km_h:.0f} km/h on average in {self.rule.name}, "
                    f"limit {self.rule.above_km_h:g} km/h",
                    details={"speed_km_h": round(speed_km_h, 1), "took_s": round(took_s, 3)},
                )

    def unmet(self, scene: Scene, track: SceneTrack) -> str:
        """Return which of the two lines a track has yet to cross."""
        second = f"second line: {self._lines[1].whereabouts(track.name)}"
        if track.name in self._entered_ns:
            return f"has crossed the first line, but not yet the {second}"
        return f"has not crossed the first line: {self._lines[0].whereabouts(track.name)}"

    def resume(self, track: str) -> None:
        """Ignore crossings while a returning track was out of sight, because their times are unknown."""
        for line in self._lines:
            line.forget(track)

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        for line in self._lines:
            line.forget(track)
        self._entered_ns.pop(track, None)
