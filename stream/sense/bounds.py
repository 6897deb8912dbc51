"""Bounds of a sensor's value: settings and state of the rules that report a value outside of its bounds. Pure."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ingest.site import SensorConfig
from stream.rules import Happening
from stream.sense.rule import SensorRule

_PRECISION = 0.01
"""Maximum rounding error of a value in an event's text, as a share of the value."""
_MOST_DECIMALS = 12
"""Maximum number of decimals in an event's text. A value that needs more decimals is written with an exponent."""


class BoundedRule(SensorRule):
    """Base of the rules that report once when a value leaves the bounds ``above`` and ``below``.

    They report a second time only after a value was within the bounds by at least ``hysteresis``.
    """

    above: float | None = None
    below: float | None = None
    hysteresis: float = Field(default=0.0, ge=0.0)

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("expected a limit in above, in below, or in both")
        if self.above is not None and self.below is not None and self.above - self.below <= 2 * self.hysteresis > 0:
            raise ValueError(f"expected above - below to be more than twice the hysteresis, {self.hysteresis:g}")
        return self

    def exceeds(self, value: float) -> bool:
        """Return whether a value exceeds a bound."""
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)

    def exceeded_bound(self, value: float) -> str | None:
        """Return as text the bound that a value exceeds, such as ``above 30``; None if the value is within the
        bounds."""
        if self.above is not None and value > self.above:
            return f"above {number(self.above)}"
        if self.below is not None and value < self.below:
            return f"below {number(self.below)}"
        return None

    def ended(self, value: float) -> bool:
        """Return whether a value ends a breach: it is within the bounds by at least ``hysteresis``."""
        if self.above is not None and value > self.above - self.hysteresis:
            return False
        return self.below is None or value >= self.below + self.hysteresis

    def shown(self, value: float) -> str:
        """Return the text of a value that exceeds a bound, with enough digits to show that the bound is exceeded."""
        bound = self.exceeded_bound(value)
        for decimals in range(1, _MOST_DECIMALS):
            rounded = round(value, decimals)
            if self.exceeded_bound(rounded) == bound and abs(rounded - value) <= _PRECISION * abs(value):
                return f"{rounded:.{decimals}f}"
        return number(value)


class BoundedWatch:
    """The state of a rule with bounds for one sensor: whether a breach of the bounds lasts."""

    def __init__(self, rule: BoundedRule, sensor: str, config: SensorConfig | None) -> None:
        self._rule, self._sensor = rule, sensor
        self._quantity, self._unit = (config.quantity, config.rule_unit) if config else ("value", "")
        self._outside = False

    def breach(self, value: float) -> Happening | None:
        """Process the next value, and return the situation to report if a breach of the bounds begins with it."""
        rule, was_outside = self._rule, self._outside
        self._outside = rule.exceeds(value) or (was_outside and not rule.ended(value))
        if was_outside or not self._outside:
            return None
        bound = rule.exceeded_bound(value)
        summary = f"{self._quantity} of {self._sensor} is {rule.shown(value)} {self._unit}, {bound}"
        return Happening(summary=summary, details={"value": value, "unit": self._unit})

    def rearm(self) -> None:
        """If a breach still lasts, report the breach with the next value that is outside of the bounds."""
        self._outside = False


def number(value: float) -> str:
    """Return a number as text with up to 15 significant digits and without a trailing ``.0``."""
    return f"{value:.15g}"
