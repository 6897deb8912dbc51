"""Rule ``fallen``, which reports that a person who stood before lies on the ground. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ingest.site.entry import Seconds
from stream.analyse.lasting import LastingWatch
from stream.analyse.rule import AreaRule, Scene, SceneHappening, SceneTrack

UPRIGHT_FRAMES = 3
"""Number of frames with an upright box after which an object counts as able to fall."""


class FallenRule(AreaRule):
    """Report once when the box of an object that was upright before has been wide instead of tall for ``for_s``.

    A box counts as upright while its height is at least its width, and as lying while its width is at least ``ratio``
    times its height. The rule suits cameras that look from the side; seen from above, a standing person has no tall
    box.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.person.fallen"

    type: Literal["fallen"] = "fallen"
    labels: tuple[str, ...] = ("person",)
    for_s: Seconds = 3.0
    ratio: float = Field(default=1.2, ge=1.0)

    def watch(self, width: int, height: int) -> FallenWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return FallenWatch(self, width, height, self.for_s)


class FallenWatch(LastingWatch[FallenRule]):
    """State of the rule: the number of frames in which each track was upright, and the present falls."""

    def __init__(self, rule: FallenRule, width: int, height: int, for_s: float) -> None:
        super().__init__(rule, width, height, for_s)
        self._upright: dict[str, int] = {}

    def holds(self, track: SceneTrack, scene: Scene) -> bool:
        """Return whether a track that was upright lies inside the polygon."""
        upright = self._upright.get(track.name, 0)
        if track.box.height >= track.box.width:
            self._upright[track.name] = upright + 1
            return False
        lies = track.box.width >= self.rule.ratio * track.box.height
        return lies and upright >= UPRIGHT_FRAMES and self.covers(track.box.centre)

    def happening(self, track: SceneTrack, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for a track that has lain for ``lasted_s`` seconds."""
        summary = f"{track.label} has lain in {self.rule.name} for {lasted_s:.1f} s"
        return SceneHappening(track=track, summary=summary, details={"lying_s": round(lasted_s, 3)})

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended."""
        super().forget(track)
        self._upright.pop(track, None)
