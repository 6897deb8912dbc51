"""Rule ``unattended``, which reports that nobody is in view although a sensor asks for it, such as at an open door.
Pure."""

from __future__ import annotations

from typing import ClassVar, Literal

from stream.analyse.rule import AreaRule, Scene
from stream.join.rule import JoinedSeconds, JoinRule, LastingJoinWatch


class UnattendedRule(AreaRule, JoinRule):
    """Report once when, for ``for_s``, no object has been inside the polygon while the sensor's condition has held.

    For example, a door has been open for 30 s and nobody is in view. An unattended zone is reported again after the
    sensor's condition was not met, or after an object was in the polygon.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.zone.unattended"

    type: Literal["unattended"] = "unattended"
    labels: tuple[str, ...] = ("person",)
    for_s: JoinedSeconds = 30.0

    @property
    def joined_for_s(self) -> float:
        """Time in seconds for which the polygon must be empty while the sensor's condition holds."""
        return self.for_s

    def watch(self, width: int, height: int) -> UnattendedWatch:
        """Return the initial state of the rule for pictures of ``width`` × ``height`` pixels."""
        return UnattendedWatch(self, width, height)


class UnattendedWatch(LastingJoinWatch[UnattendedRule]):
    """State of the rule: since when nobody is inside the polygon."""

    def interrupts(self, scene: Scene) -> bool:
        """Return whether an object is inside the polygon."""
        return any(self.rule.applies_to(track) and self.covers(track.box.centre) for track in scene.visible)

    def summary(self) -> str:
        """Return the text of the event, without the part about the sensor."""
        return f"no {self.rule.subject_words or 'object'} in {self.rule.name}"
