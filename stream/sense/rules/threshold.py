"""Rule ``threshold``: the mean of a sensor's readings in a window is above or below a value. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from ingest.site import SensorConfig
from stream.rules import Happening
from stream.sense.rule import SensorRule
from stream.sense.windows import ReadingWindow

_PRECISION = 0.01
"""Maximum rounding error of a value in an event's text, as a share of the value."""
_MOST_DECIMALS = 12
"""Maximum number of decimals in an event's text. A value that needs more decimals is written with an exponent."""


class ThresholdRule(SensorRule):
    """Report once when a window's mean leaves the bounds.

    Report a second time only after the mean of a window was within the bounds.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.reading.threshold"

    type: Literal["threshold"] = "threshold"
    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("expected a limit in above, in below, or in both")
        return self

    def watch(self, sensor: str, config: SensorConfig | None) -> ThresholdWatch:
        """Create the state of the rule for one sensor."""
        return ThresholdWatch(self, sensor, config)

    def exceeded(self, mean: float) -> str | None:
        """Return as text the bound that a mean exceeds, such as ``above 30``; None if the mean is within the
        bounds."""
        if self.above is not None and mean > self.above:
            return f"above {number(self.above)}"
        if self.below is not None and mean < self.below:
            return f"below {number(self.below)}"
        return None

    def shown(self, mean: float) -> str:
        """Return the text of a mean that exceeds a bound, with enough digits to show that the bound is exceeded."""
        bound = self.exceeded(mean)
        for decimals in range(1, _MOST_DECIMALS):
            rounded = round(mean, decimals)
            if self.exceeded(rounded) == bound and abs(rounded - mean) <= _PRECISION * abs(mean):
                return f"{rounded:.{decimals}f}"
        return number(mean)


def number(value: float) -> str:
    """Return a number as text with up to 15 significant digits and without a trailing ``.0``."""
    return f"{value:.15g}"


class ThresholdWatch:
    """The state of the rule for one sensor: whether the last window was outside the bounds."""

    def __init__(self, rule: ThresholdRule, sensor: str, config: SensorConfig | None) -> None:
        self._rule = rule
        self._sensor = sensor
        self._quantity, self._unit = (config.quantity, config.unit) if config else ("value", "")
        self._outside = False

    def step(self, window: ReadingWindow) -> Happening | None:
        """Process the next window, and return a happening if the window's mean is outside the bounds and the previous
        window's mean was within the bounds."""
        bound = self._rule.exceeded(window.mean)
        was_outside, self._outside = self._outside, bound is not None
        if bound is None or was_outside:
            return None
        return Happening(
            summary=f"{self._quantity} of {self._sensor} is {self._rule.shown(window.mean)} {self._unit}, {bound}",
            details={"value": window.mean, "unit": self._unit},
        )
