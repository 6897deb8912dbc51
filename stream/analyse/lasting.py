"""State of the rules that report a track once a condition has held for a time, such as a stopped vehicle. Pure."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic

from stream.analyse.rule import R_co, RuleWatch, Scene, SceneHappening, SceneTrack

END_FRAMES = 3
"""Number of consecutive frames without the condition that end a period. One frame does not suffice, because the box
of an object moves slightly from frame to frame."""


@dataclass
class _Period:
    since_ns: int
    failed: int = 0
    """Number of consecutive frames in which the condition did not hold."""
    reported: bool = False


class LastingWatch(RuleWatch[R_co], Generic[R_co]):
    """State of a rule with a condition: the present period of each track, in which the condition holds.

    Each period is reported once, when it has lasted for ``for_s``. If the condition has held for ``for_s`` while the
    rule must not report, for example during a cooldown, the rule reports it later, provided that it still holds. A
    period that ends before it can be reported is not reported. A subclass whose condition depends on other tracks
    sets ``PER_TRACK`` to false.
    """

    PER_TRACK = True

    def __init__(self, rule: R_co, width: int, height: int, for_s: float) -> None:
        super().__init__(rule, width, height)
        self._for_ns = round(for_s * 1e9)
        self._periods: dict[str, _Period] = {}

    @abc.abstractmethod
    def holds(self, track: SceneTrack, scene: Scene) -> bool:
        """Return whether the condition holds for a track in this frame."""

    @abc.abstractmethod
    def happening(self, track: SceneTrack, lasted_s: float) -> SceneHappening:
        """Return the event's summary and details for a track that has met the condition for ``lasted_s`` seconds."""

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame and return the periods to report now."""
        for track in scene.tracks:
            period = self._period(track, scene)
            if period is None or period.reported or scene.at_ns - period.since_ns < self._for_ns:
                continue
            if self.rule.applies_to(track) and not self.is_quiet(scene, track.name):
                period.reported = True
                yield self.happening(track, (scene.at_ns - period.since_ns) / 1e9)

    def unmet(self, scene: Scene, track: SceneTrack) -> str:
        """Return why the present period of a track is not reported now."""
        period = self._periods.get(track.name)
        if period is None or period.failed:
            return super().unmet(scene, track)
        lasted_s, for_s = (scene.at_ns - period.since_ns) / 1e9, self._for_ns / 1e9
        if period.reported:
            return f"already reported: the condition has held for {lasted_s:.1f} s without interruption"
        return f"the condition has held for {lasted_s:.1f} s of {for_s:g} s" if lasted_s < for_s else ""

    def settle(self, subject: str) -> None:
        """Note that the present period of a track has been reported."""
        if subject in self._periods:
            self._periods[subject].reported = True

    def is_reported(self, track: str) -> bool:
        """Return whether the present period of a track has been reported."""
        period = self._periods.get(track)
        return period is not None and period.reported

    def forget(self, track: str) -> None:
        """Forget the times of a track that has ended."""
        super().forget(track)
        self._periods.pop(track, None)

    def interrupt(self, track: str) -> None:
        """End the period of a track unless the period has been reported."""
        if not self.is_reported(track):
            self._periods.pop(track, None)

    def _period(self, track: SceneTrack, scene: Scene) -> _Period | None:
        """Return the present period of a track for which the condition holds now, beginning it if necessary."""
        period = self._periods.get(track.name)
        if self.holds(track, scene):
            period = self._periods.setdefault(track.name, _Period(scene.at_ns))
            period.failed = 0
            return period
        if period:
            period.failed += 1
            if period.failed >= END_FRAMES:
                del self._periods[track.name]
        return None
