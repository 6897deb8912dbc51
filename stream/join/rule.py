"""Base class of the rules that join a camera with a sensor, and the camera's part of rules over lasting conditions.
Pure."""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import Annotated, ClassVar, Generic, Self, TypeVar

from pydantic import Field, model_validator

from ingest.contract.records.base import Name
from ingest.contract.records.signal import Change, JoinSignal
from stream.analyse.rule import MARGIN_S, TAIL_S, CameraRule, RuleWatch, Scene, SceneHappening
from stream.analyse.tracking.tracker import LOST_S
from stream.sense.windows import Column

SIGNAL_NS = 10**9
"""Interval of a camera's signals by its capture time, in ns. The first frame in each interval causes a signal even if
nothing has changed, so that a join knows that time passes. After a restart, the same frames cause signals as
before."""
KEPT_S = 1800.0
"""Length in seconds of the history that a join keeps, and reads back after a restart. A rule writes about one signal
per second of its camera and one per record of its sensor: about 3,000 records in half an hour."""

JoinedSeconds = Annotated[float, Field(ge=0.0, le=KEPT_S / 2)]
"""A time setting of at most half the history of a join, so that a restarted join gives the same events."""


class JoinRule(CameraRule):
    """Base of the rules that report a situation of a camera only while the readings of a sensor meet a condition.

    The stage ``analyse`` applies the rule to the camera's tracked frames, and writes candidate events to the topic
    ``signals``. The stage ``sense`` writes to the same topic when the sensor's condition holds, and joins candidates
    and conditions by capture time.
    """

    REFERS_TO: ClassVar[tuple[str, ...]] = ("camera", "pipeline", "sensor")
    IS_LASTING: ClassVar[bool] = True
    """Whether the camera's condition lasts. A rule with a lasting condition reports once while the camera's and the
    sensor's conditions both hold. Without a lasting condition, the rule reports each candidate event that happens
    while the sensor's condition holds."""

    sensor: Name
    above: float | None = None
    below: float | None = None
    """The condition: a reading is above ``above``, or below ``below``. If both bounds are set, a reading beyond one
    of them meets the condition."""
    valid_s: JoinedSeconds = 300.0
    """Time in seconds for which a reading is valid if no other one follows."""
    wait_s: JoinedSeconds = 5.0
    """Maximum time in seconds for which a reading may be delayed on its way. A sensor without a reading for
    ``wait_s`` counts as silent, and the value of its last reading is assumed to last."""

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("expected a condition of the sensor in above, in below, or in both")
        return self

    @model_validator(mode="after")
    def _has_a_known_cooldown(self) -> Self:
        if self.cooldown_s > KEPT_S / 2:
            raise ValueError(f"expected a cooldown_s of at most {KEPT_S / 2:g} in a rule that joins a sensor")
        return self

    @property
    def joined_for_s(self) -> float:
        """Time in seconds for which both conditions must hold together."""
        return 0.0

    @property
    def track_cooldown_s(self) -> float:
        """Return 0: ``analyse`` applies no cooldown, because the stage ``sense`` applies it to the joined events."""
        return 0.0

    @property
    def tail_s(self) -> float:
        """Length in seconds of the past results that the camera's part of the rule needs."""
        return max(TAIL_S, 2 * self.joined_for_s + MARGIN_S)

    @property
    def condition(self) -> str:
        """The condition of the sensor in words, such as ``above 0.5``."""
        bounds = (("above", self.above), ("below", self.below))
        return " or ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)

    def holds(self, value: float) -> bool:
        """Return whether a reading meets the condition."""
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)

    def sensor_signal(self, epoch: int, last_seq: int, column: Column) -> JoinSignal:
        """Return the signal that says when the readings of ``column``, at least one, meet the rule's condition."""
        changes: list[Change] = []
        for at_ns, value in sorted(zip(*column, strict=True), key=lambda row: row[0]):
            holds = self.holds(value)
            if not changes or changes[-1].holds is not holds:
                changes.append(Change(at_ns, holds))
        return JoinSignal(
            rule=self.name,
            sensor=self.sensor,
            epoch=epoch,
            seq=last_seq,
            at_ns=max(column.times_ns),
            changes=tuple(changes),
        )

    def silent_signal(self, epoch: int, last_seq: int, at_ns: int) -> JoinSignal:
        """Return the signal that the sensor has sent no reading after its last one up to ``at_ns``."""
        return JoinSignal(rule=self.name, sensor=self.sensor, epoch=epoch, seq=last_seq, at_ns=at_ns)


J_co = TypeVar("J_co", bound=JoinRule, covariant=True)


class LastingJoinWatch(RuleWatch[J_co], Generic[J_co]):
    """The camera's part of a rule that needs a sensor and has a lasting condition, such as an empty zone.

    The condition begins anew after a gap in which no frame of the camera was classified.
    """

    def __init__(self, rule: J_co, width: int, height: int) -> None:
        super().__init__(rule, width, height)
        self._since_ns: int | None = None
        self._interval = -1

    @abc.abstractmethod
    def interrupts(self, scene: Scene) -> bool:
        """Return whether the condition does not hold in a frame. This method is called for the tracks of each
        classified frame."""

    @abc.abstractmethod
    def summary(self) -> str:
        """Return the text of the event, without the part about the sensor."""

    def step(self, scene: Scene) -> Iterator[SceneHappening]:
        """Process the tracks of the next frame and return the candidate event of the present condition, if one is
        due."""
        interrupted = self.interrupts(scene)
        before, self._interval = self._interval, scene.captured_ns // SIGNAL_NS
        if interrupted or scene.gap_s > LOST_S:
            self._since_ns = None
        if interrupted:
            return
        begins = self._since_ns is None
        if self._since_ns is None:
            self._since_ns = scene.captured_ns
        if begins or before != self._interval:
            yield SceneHappening(
                occurrence=scene.frame,
                label=" or ".join(self.rule.labels),
                summary=self.summary(),
                since_ns=min(self._since_ns, scene.captured_ns),
            )

    def scene_reasons(self, scene: Scene) -> list[str]:
        """Return for how long the camera's condition has held. The stage ``sense`` decides whether the rule reports
        the condition."""
        if self._since_ns is None:
            return ["the camera's condition does not hold"]
        lasted_s = (scene.captured_ns - self._since_ns) / 1e9
        return [f"the camera's condition has held for {lasted_s:.1f} s; sensor {self.rule.sensor} decides"]
