"""Bounds of a sensor's value: the settings of the rules that report a value outside of its bounds. Pure."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

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

    def exceeded(self, value: float) -> str | None:
        """Return as text the bound that a value exceeds, such as ``above 30``; None if the value is within the
        bounds."""
        if not self.exceeds(value):
            return None
        if self.above is not None and value > self.above:
            return f"above {number(self.above)}"
        return f"below {number(self.below or 0.0)}"

    def ended(self, value: float) -> bool:
        """Return whether a value ends a breach: it is within the bounds by at least ``hysteresis``."""
        if self.above is not None and value > self.above - self.hysteresis:
            return False
        return self.below is None or value >= self.below + self.hysteresis

    def is_outside(self, value: float, was_outside: bool) -> bool:
        """Return whether a breach of the bounds begins or lasts with a value. ``was_outside`` is the answer for the
        value before it."""
        return self.exceeds(value) or (was_outside and not self.ended(value))

    def shown(self, value: float) -> str:
        """Return the text of a value that exceeds a bound, with enough digits to show that the bound is exceeded."""
        bound = self.exceeded(value)
        for decimals in range(1, _MOST_DECIMALS):
            rounded = round(value, decimals)
            if self.exceeded(rounded) == bound and abs(rounded - value) <= _PRECISION * abs(value):
                return f"{rounded:.{decimals}f}"
        return number(value)

    def happening(self, value: float, sensor: str, quantity: str, unit: str) -> Happening:
        """Return the situation that ``value``, which exceeds a bound, has begun."""
        return Happening(
            summary=f"{quantity} of {sensor} is {self.shown(value)} {unit}, {self.exceeded(value)}",
            details={"value": value, "unit": unit},
        )


def number(value: float) -> str:
    """Return a number as text with up to 15 significant digits and without a trailing ``.0``."""
    return f"{value:.15g}"
