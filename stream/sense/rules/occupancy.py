"""Rule ``occupancy``: the number of objects inside a place, entries minus exits, is above or below a limit. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from ingest.contract.records.base import Name
from ingest.runtime.clock import unix_ns
from ingest.site import Site
from ingest.site.hours import TimeOfDay
from stream.rules import Happening, Rule
from stream.sense.occupancy.count import MINUTE_NS, Direction, KnownCount, Occupancy, OccupancyCount


class OccupancyRule(Rule):
    """Count the objects inside a place, and report once when the count passes ``above`` or ``below``.

    A reported situation ends when the count is within the limit by at least ``hysteresis``. A rule with ``below``
    reports only after the count has reached the limit since the last reset, because an empty place is usual then.
    A rule without a limit only counts.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.place.occupancy"
    REFERS_TO: ClassVar[tuple[str, ...]] = ()

    type: Literal["occupancy"] = "occupancy"
    doors: dict[Name, Direction] = Field(min_length=1, max_length=100)
    """Direction of an entry for each measure of the type ``line``."""
    above: int | None = Field(default=None, ge=0)
    below: int | None = Field(default=None, ge=1)
    hysteresis: int = Field(default=0, ge=0)
    reset_at: TimeOfDay
    """Local time of day at which the count begins again at 0."""
    counted_at: AwareDatetime | None = None
    counted: int | None = Field(default=None, ge=0)
    """Number of objects that a person has counted inside at ``counted_at``; it corrects the count of that day."""

    @model_validator(mode="after")
    def _has_complete_settings(self) -> Self:
        if self.above is not None and self.below is not None:
            raise ValueError("expected above or below, but not both: write two rules")
        if (self.counted_at is None) != (self.counted is None):
            raise ValueError("expected counted_at and counted together")
        return self

    def site_misfit(self, site: Site) -> tuple[str, object, str] | None:
        """Return the setting, value and expected value if the doors are no lines of one camera and pipeline, or if
        the rule's records would have the name of a measure."""
        measures = {one.name: one for one in site.measures}
        if self.name in measures or self.name in {one.name for one in site.sensors if one.measure}:
            return "name", self.name, "a name that no measure and no measured sensor has"
        for door in self.doors:
            if door not in measures or measures[door].type != "line":
                return "doors", door, "the name of a measure of the type line in this file"
        if len({(measures[door].camera, measures[door].pipeline) for door in self.doors}) > 1:
            return "doors", ", ".join(self.doors), "measures of one camera and pipeline"
        return None

    def counter(self) -> Occupancy:
        """Return a new count of the place."""
        known = None
        if self.counted_at is not None and self.counted is not None:
            known = KnownCount(unix_ns(self.counted_at), self.counted)
        return Occupancy(self.doors, self.reset_at, self.time_zone or "UTC", known)


class OccupancyReporter:
    """The state of one rule since the last reset: whether its situation lasts, and the time of its last event."""

    def __init__(self, rule: OccupancyRule) -> None:
        self._rule = rule
        self._reset_ns: int | None = None
        self._lasts = False
        self._reported_ns: int | None = None

    def step(self, count: OccupancyCount) -> Happening | None:
        """Process the next count, and return the situation to report, if one begins.

        A situation that begins outside of the rule's hours or during its cooldown is reported afterwards if it still
        lasts. A reset ends the situation and the cooldown.
        """
        rule, at_ns = self._rule, count.start_ns + MINUTE_NS
        if count.reset_ns != self._reset_ns:
            self._reset_ns, self._reported_ns = count.reset_ns, None
            self._lasts = rule.below is not None  # an empty place after the reset is no event
        if self._lasts:
            self._lasts = not self._has_ended(count.inside)
            return None
        waits = self._reported_ns is not None and at_ns - self._reported_ns < rule.cooldown_s * 1e9
        side = self._side(count.inside)
        if side is None or waits or not rule.in_force(at_ns):
            return None
        self._lasts, self._reported_ns = True, at_ns
        return Happening(
            summary=f"{count.inside:g} inside of {rule.name}, {side}",
            details={
                "inside": count.inside,
                "entries": count.entries,
                "exits": count.exits,
                "unmatched_exits": count.unmatched,
            },
        )

    def report_again(self) -> None:
        """Report a situation that lasts with the next count. The events of the counts so far were not written."""
        if self._reported_ns is not None:
            self._lasts, self._reported_ns = False, None

    def _side(self, inside: float) -> str | None:
        rule = self._rule
        if rule.above is not None and inside > rule.above:
            return f"above {rule.above}"
        return f"below {rule.below}" if rule.below is not None and inside < rule.below else None

    def _has_ended(self, inside: float) -> bool:
        rule = self._rule
        if rule.above is not None:
            return inside <= max(rule.above - rule.hysteresis, 0)
        return rule.below is None or inside >= rule.below + rule.hysteresis
