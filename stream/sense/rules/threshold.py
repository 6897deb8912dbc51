"""Rule ``threshold``: the mean of a sensor's readings in a window is above or below a value. Pure."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.site import SensorConfig
from stream.rules import Happening
from stream.sense.rule import WindowRule, WindowWatch
from stream.sense.windows import ReadingWindow

_PRECISION = 0.01
"""Maximum rounding error of a value in an event's text, as a share of the value."""
_MOST_DECIMALS = 12
"""Maximum number of decimals in an event's text. A value that needs more decimals is written with an exponent."""


class ThresholdRule(WindowRule):
    """Report once when a window's mean leaves the bounds.

    Report a second time only after the mean of a window was within the bounds by at least ``hysteresis``.
    """

    EVENT_TYPE: ClassVar[str] = "sightline.reading.threshold"

    type: Literal["threshold"] = "threshold"
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

    def ended(self, mean: float) -> bool:
        """Return whether a mean ends a breach: it is within the bounds by at least ``hysteresis``."""
        if self.above is not None and mean > self.above - self.hysteresis:
            return False
        return self.below is None or mean >= self.below + self.hysteresis

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


class ThresholdWatch(WindowWatch):
    """The state of the rule for one sensor: whether a breach of the bounds lasts."""

    def __init__(self, rule: ThresholdRule, sensor: str, config: SensorConfig | None) -> None:
        self._rule = rule
        self._sensor = sensor
        self._quantity, self._unit = (config.quantity, config.rule_unit) if config else ("value", "")
        self._outside = False

    def step(self, window: ReadingWindow) -> Happening | None:
        """Process the next window, and return the situation to report if a breach of the bounds begins with this
        window."""
        mean = window.mean
        bound = self._rule.exceeded(mean)
        was_outside, self._outside = (
            self._outside,
            bound is not None or (self._outside and not self._rule.ended(mean)),
        )
        if bound is None or was_outside:
            return None
        return Happening(
            summary=f"{self._quantity} of {self._sensor} is {self._rule.shown(mean)} {self._unit}, {bound}",
            details={"value": mean, "unit": self._unit},
        )

    def rearm(self) -> None:
        """If a breach still lasts, report the breach with the next window that is outside of the bounds."""
        self._outside = False
