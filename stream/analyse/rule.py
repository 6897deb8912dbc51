"""Bases of camera rules: their settings, and the state that one keeps from frame to frame. Pure."""

from __future__ import annotations

import abc
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple, TypeVar

from ingest.contract.records.base import Name
from ingest.site.entry import RelativePoint, Share
from stream.analyse.scene import Scene, SceneTrack
from stream.rules import Happening, Rule

TAIL_S = 120.0
"""Past that a rule without times of its own needs. A track lives as long as its object is in the picture: a vehicle
for seconds, a person who waits for a minute or two."""
MARGIN_S = 60.0
"""Past beside a rule's own times: an object that is seen now and then needs it to be followed again."""


def tail_for(*times_s: float) -> float:
    """Return the past, in seconds, that a rule with these times needs after a restart.

    It is twice the longest time, because an object that was there before the past begins is taken for a new one. In
    the first half, that object reaches the rule's dwell time; in the second half, the cooldown of its event ends.
    """
    return max(TAIL_S, 2 * max(times_s) + MARGIN_S)


class CameraRule(Rule):
    """Base of the rules over the tracks of one camera and pipeline."""

    REFERS_TO: ClassVar[tuple[str, ...]] = ("camera", "pipeline")

    camera: Name
    pipeline: Name
    labels: tuple[str, ...] = ()
    """Labels that the rule applies to; empty for all."""
    min_score: Share = 0.3

    def applies_to(self, track: SceneTrack) -> bool:
        """Return whether a track has one of the rule's labels, and a high enough score."""
        return track.score >= self.min_score and (not self.labels or track.label in self.labels)

    @property
    def tail_s(self) -> float:
        """Past results, in seconds, from which a new owner of the partition rebuilds the rule's state."""
        return tail_for(self.cooldown_s)

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[RelativePoint, ...]:
        """The line (two points) or polygon to draw on the evidence picture; may be empty."""

    @abc.abstractmethod
    def watch(self, width: int, height: int) -> RuleWatch[CameraRule]:
        """Return a new state for pictures of this size."""


R_co = TypeVar("R_co", bound=CameraRule, covariant=True)
WHOLE_SCENE = ""
"""Subject of happenings that are of no track in particular."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneHappening(Happening):
    """A happening in a scene: of one ``track``, or of no track in particular.

    A happening of no track in particular has an ``occurrence``, such as the name of the frame with which it began,
    and may have the ``label`` of the objects involved. The happenings of one track form one incident. Each occurrence
    is an incident of its own.
    """

    track: SceneTrack | None = None
    occurrence: str = ""
    label: str = ""

    @property
    def subject(self) -> str:
        """The track's name, or ``WHOLE_SCENE``."""
        return self.track.name if self.track else WHOLE_SCENE


class NumberedHappening(NamedTuple):
    """A happening, and its number within its incident, from 1."""

    happening: SceneHappening
    number: int


class RuleWatch(abc.ABC, Generic[R_co]):
    """State of one rule during one epoch.

    A rule implements ``step`` and, if it keeps state of its own, ``settle`` and ``forget``. This base class assigns a
    number to each happening of a track, and applies the cooldown. It also leaves out happenings whose events an
    earlier owner of the partition has already written.
    """

    def __init__(self, rule: R_co) -> None:
        self.rule = rule
        self._numbers: Counter[str] = Counter()
        self._quiet_until_ns: dict[str, int] = {}

    @abc.abstractmethod
    def step(self, scene: Scene) -> Iterable[SceneHappening]:
        """Take the next scene and return the happenings that are now to be reported, at most one per subject.

        The label and the score of a track decide only whether it is reported. Its place counts in every frame.
        """

    def settle(self, subject: str) -> None:
        """Note that an event of this subject and frame has already been written. Called after ``step``."""

    def forget(self, track: str) -> None:
        """Drop the state of a track that has ended. An override must call it."""
        self._numbers.pop(track, None)
        self._quiet_until_ns.pop(track, None)

    def is_quiet(self, scene: Scene, subject: str = WHOLE_SCENE) -> bool:
        """Return whether the cooldown after the subject's last event still lasts."""
        return scene.at_ns < self._quiet_until_ns.get(subject, 0)

    def observe(self, scene: Scene, reported: Collection[str]) -> list[NumberedHappening]:
        """Step, and return the happenings without a written event. ``reported`` are the subjects that have one."""
        found = list(self.step(scene))
        for subject in reported:
            self.settle(subject)
        for subject in {*reported, *(happening.subject for happening in found)}:
            self._numbers[subject] += 1
            self._quiet_until_ns[subject] = scene.at_ns + round(self.rule.cooldown_s * 1e9)
        fresh = (happening for happening in found if happening.subject not in reported)
        return [NumberedHappening(one, self._numbers[one.subject] if one.track else 1) for one in fresh]
