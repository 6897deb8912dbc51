"""State of the rules that report a condition of the whole picture, such as a number of objects. Pure."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic

from stream.analyse.rule import R_co, RuleWatch, Scene, SceneHappening, SceneTrack
from stream.analyse.tracking.tracker import LOST_S

SETTLE_FRAMES = 3
"""Number of consecutive frames that begin or end an occurrence. One frame does not suffice, because a track appears
only with its second detection, and a detector may overlook an object in one frame."""


@dataclass
class _Occurrence:
    """A period in which the condition holds."""

    frame: str
    since_ns: int
    frames: int = 0
    failed: int = 0
    """Number of consecutive frames in which the condition did not hold."""
    reported: bool = False


class OccurrenceWatch(RuleWatch[R_co], Generic[R_co]):
    """State of a rule with a condition over all tracks: the present occurrence, during which the condition holds.

    An occurrence is reported once, when it has lasted for ``for_s``. An occurrence that reaches ``for_s`` outside of
    the rule's hours or during a cooldown is reported afterwards if the occurrence still lasts.
    """

    def __init__(self, rule: R_co, width: int, height: int, for_s: float) -> None:
        super().__init__(rule, width, height)
        self._for_s = for_s
        self._occurrence: _Occurrence | None = None

    @abc.abstractmethod
    def counted(self, scene: Scene) -> list[SceneTrack]:
        """Return the tracks on which the condition depends."""

    @abc.abstractmethod
    def holds(self, found: list[SceneTrack], *, reported: bool) -> bool:
        """Return whether the condition holds for the counted tracks. ``reported`` is true once the present occurrence
        has been reported; hysteresis applies from then on."""

    @abc.abstractmethod
    def happening(self, found: list[SceneTrack], scene: Scene, occurrence: str, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for an occurrence that has lasted for ``lasted_s`` seconds."""

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame and return the occurrence to report now, if any."""
        found = self.counted(scene)
        occurrence = self._occurrence = self._updated(scene, found)
        if occurrence is None or occurrence.reported or self.is_quiet(scene):
            return
        lasted_s = (scene.at_ns - occurrence.since_ns) / 1e9
        if self.holds(found, reported=False) and occurrence.frames >= SETTLE_FRAMES and lasted_s >= self._for_s:
            occurrence.reported = True
            yield self.happening(found, scene, occurrence.frame, lasted_s)

    def unmet(self, scene: Scene, track: SceneTrack) -> str:
        """Return the text ``counted``, or the reason why a track is not counted."""
        if any(one.name == track.name for one in self.counted(scene)):
            return "counted"
        return super().unmet(scene, track) or "not counted"

    def scene_reasons(self, scene: Scene) -> list[str]:
        """Return the number of counted tracks, and how far the present occurrence is from being reported."""
        count, occurrence = len(self.counted(scene)), self._occurrence
        if occurrence is None or occurrence.failed:
            return [f"{count} objects counted: the condition does not hold"]
        lasted_s = (scene.at_ns - occurrence.since_ns) / 1e9
        if occurrence.reported:
            state = f"already reported: the condition has held for {lasted_s:.1f} s without interruption"
        elif occurrence.frames < SETTLE_FRAMES or lasted_s < self._for_s:
            state = f"the condition has held for {lasted_s:.1f} s of {self._for_s:g} s, {occurrence.frames} frames"
        else:
            state = self.quiet_reason(scene)
        return [f"{count} objects counted: {state}"]

    def settle(self, subject: str) -> None:
        """Note that the present period in which the condition holds has been reported."""
        if self._occurrence:
            self._occurrence.reported = True

    def _updated(self, scene: Scene, found: list[SceneTrack]) -> _Occurrence | None:
        """Return the present occurrence after a frame; None if there is no occurrence."""
        occurrence = self._occurrence
        if occurrence and not occurrence.reported and scene.gap_s > LOST_S:
            occurrence = None  # the condition during the gap is unknown
        if self.holds(found, reported=occurrence is not None and occurrence.reported):
            occurrence = occurrence or _Occurrence(scene.frame, scene.at_ns)
            occurrence.frames, occurrence.failed = occurrence.frames + 1, 0
        elif occurrence:
            occurrence.failed += 1
            if occurrence.failed >= SETTLE_FRAMES:
                return None
        return occurrence
