"""Rule ``turning``, which reports from which line to which line an object has gone. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.records.base import Name
from ingest.site.entry import RelativeLine
from stream.analyse.crossing import line_counter
from stream.analyse.rule import CameraRule, RuleWatch, Scene, SceneHappening, SceneTrack


class TurningRule(CameraRule):
    """Report each movement of an object from one of the ``lines`` to another one.

    ``lines`` are lines across the arms of a junction, by name, such as ``north``. An object that returns through the
    line by which it came makes a U-turn. With ``only``, the rule reports only these pairs of origin and destination.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.turn"

    type: Literal["turning"] = "turning"
    lines: dict[Name, RelativeLine] = Field(min_length=2)
    only: tuple[tuple[Name, Name], ...] = ()

    @model_validator(mode="after")
    def _names_known_lines(self) -> Self:
        unknown = sorted({name for pair in self.only for name in pair} - set(self.lines))
        if unknown:
            raise ValueError(
                f"expected only = pairs of line names ({', '.join(self.lines)}), not {', '.join(unknown)}"
            )
        return self

    def watch(self, width: int, height: int) -> TurningWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return TurningWatch(self, width, height)


class TurningWatch(RuleWatch[TurningRule]):
    """State of the rule: the counters of all lines, and the line that each track crossed first."""

    PER_TRACK = True

    def __init__(self, rule: TurningRule, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._lines = {name: line_counter(line, width, height) for name, line in rule.lines.items()}
        self._origins: dict[str, str] = {}

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame and return the movements that end now."""
        for track in scene.tracks:
            if track.at_rest:
                continue
            crossed = [
                (line.passed_ns(track.name), name)
                for name, line in self._lines.items()
                if line.step(track.name, track.box.centre, scene.at_ns)
            ]
            for _, destination in sorted(crossed):
                origin = self._origins.pop(track.name, None)
                if origin is None:
                    self._origins[track.name] = destination
                elif self._reports(origin, destination, track, scene):
                    yield SceneHappening(
                        track=track,
                        summary=f"{track.label} went from {origin} to {destination} in {self.rule.name}",
                        details={"origin": origin, "destination": destination},
                    )
                    break

    def settle(self, subject: str) -> None:
        """Note that the movement of a track has been reported, so that the next movement begins with another line."""
        self._origins.pop(subject, None)

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        for line in self._lines.values():
            line.forget(track)
        self._origins.pop(track, None)

    def _reports(self, origin: str, destination: str, track: SceneTrack, scene: Scene) -> bool:
        wanted = not self.rule.only or (origin, destination) in self.rule.only
        return wanted and self.rule.applies_to(track) and not self.is_quiet(scene, track.name)
