"""The live skill of a model's canary version: its errors, its agreement with the promoted version, and its events.
Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SkillLimits:
    """The limits of a canary version's live skill, over the last ``window_s`` seconds.

    ``max_errors`` is the largest share of frames for which the canary version may fail. ``min_agreement`` is the
    smallest share of objects that the canary version and the promoted version must find with the same label.
    ``max_change`` is the largest factor by which the number of events of the canary's cameras may grow or shrink,
    relative to the other cameras. A limit is not applied with fewer than ``min_frames`` frames, ``min_compared``
    compared frames, or ``min_events`` events.
    """

    window_s: float = 600.0
    max_errors: float = 0.01
    min_agreement: float = 0.8
    max_change: float = 3.0
    min_frames: int = 100
    min_compared: int = 50
    min_events: int = 20


@dataclass
class CameraSide:
    """The counts of frames, errors and events of the canary's cameras, or of all other cameras."""

    frames: int = 0
    errors: int = 0
    events: int = 0
    events_before: int = 0
    """Number of events before the canary began, in a period as long as the judged one."""

    @property
    def change(self) -> float:
        """Factor by which the number of events has changed since the canary began. Both numbers of events are
        increased by one, to avoid a division by zero."""
        return (self.events + 1) / (self.events_before + 1)


@dataclass
class LiveSkill:
    """The counts from which a canary version is judged, in the last ``window_s`` seconds. The canary version and the
    promoted version gave ``agreed`` of ``objects`` the same label."""

    window_s: float
    canary: CameraSide = field(default_factory=CameraSide)
    others: CameraSide = field(default_factory=CameraSide)
    compared: int = 0
    objects: int = 0
    agreed: int = 0

    def side(self, served: bool) -> CameraSide:
        """Return the counts of the cameras that the canary serves, or of all other cameras."""
        return self.canary if served else self.others

    @property
    def errors(self) -> float:
        """Share of the canary's frames that failed."""
        return self.canary.errors / max(1, self.canary.frames + self.canary.errors)

    @property
    def agreement(self) -> float:
        """Share of the objects to which the canary version and the promoted version gave the same label; 1 without
        objects."""
        return self.agreed / self.objects if self.objects else 1.0

    @property
    def change(self) -> float:
        """Factor by which the events of the canary's cameras have changed, divided by the factor of the other
        cameras."""
        return self.canary.change / self.others.change

    def reasons(self, limits: SkillLimits) -> list[str]:
        """Return the reasons why the canary must be rolled back; an empty list if the canary may go on."""
        return list(self._exceeded(limits))

    def _exceeded(self, limits: SkillLimits) -> Iterator[str]:
        side = self.canary
        if side.frames + side.errors >= limits.min_frames and self.errors > limits.max_errors:
            yield f"{self.errors:.1%} of its frames failed: expected at most {limits.max_errors:.1%}"
        if self.compared >= limits.min_compared and self.agreement < limits.min_agreement:
            yield (
                f"it agrees with the promoted version on {self.agreement:.1%} of the objects: expected at least "
                f"{limits.min_agreement:.1%}"
            )
        change = self.change
        if max(side.events, side.events_before) >= limits.min_events and (
            change > limits.max_change or change < 1 / limits.max_change
        ):
            yield (
                f"the events of its cameras changed by the factor {change:.2f} relative to the other cameras: "
                f"expected {1 / limits.max_change:.2f} to {limits.max_change:.2f}"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the live skill as values for JSON."""
        return {
            "window_s": round(self.window_s, 1),
            "frames": self.canary.frames,
            "errors": round(self.errors, 4),
            "compared": self.compared,
            "agreement": round(self.agreement, 4),
            "events": self.canary.events,
            "events_before": self.canary.events_before,
            "others_events": self.others.events,
            "others_events_before": self.others.events_before,
            "change": round(self.change, 3),
        }
