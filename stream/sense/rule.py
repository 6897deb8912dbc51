"""Base classes of sensor rules: the settings of a rule, and the state that a rule keeps. Pure."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterable
from typing import ClassVar, NamedTuple, Self

from pydantic import Field, model_validator

from ingest.contract.records.base import Name
from ingest.site import SensorConfig
from ingest.site.entry import PositiveSeconds
from stream.rules import Happening, Rule
from stream.sense.windows import Column, ReadingWindow

TAIL_WINDOWS = 3
"""Number of windows that a new owner of a partition reads back: the open window, and two closed windows that show
whether a bound is exceeded."""
MAX_PANES = 1000
"""Maximum length of one window, in multiples of ``hop_s``. The rule adds up at most ``MAX_PANES`` sums for each
window."""
_WHOLE = 1e-6
"""Largest distance from a whole number at which the ratio of two settings counts as whole, because settings such as
0.1 are no exact floats."""


class SensorRule(Rule):
    """Base of the rules over one sensor."""

    REFERS_TO: ClassVar[tuple[str, ...]] = ("sensor",)
    TAKES_COLUMNS: ClassVar[bool] = False
    """Whether the rule never fails, and makes the same events however consecutive readings are divided into columns.
    The waiting records of a sensor are processed together only if all its rules take columns."""

    sensor: Name

    @abc.abstractmethod
    def tail_s(self, interval_s: float) -> float:
        """Return the length in seconds of the history from which a new owner of the partition rebuilds the rule's
        state. The length of the history does not include the cooldown.

        ``interval_s`` is the time between two readings of the sensor, 0 if unknown.
        """


class WindowRule(SensorRule):
    """Base of the rules over one sensor's windows of ``window_s`` seconds.

    By default, windows do not overlap. With ``hop_s``, a window begins every ``hop_s`` seconds. With
    ``session_gap_s``, a window ends after ``session_gap_s`` without a reading, at the latest at the next multiple of
    ``window_s``.
    """

    window_s: PositiveSeconds = 5.0
    hop_s: PositiveSeconds | None = None
    session_gap_s: PositiveSeconds | None = None
    min_readings: int = Field(default=3, ge=1)
    """Minimum number of readings in a window. The rule skips a window with fewer readings than this number."""

    @model_validator(mode="after")
    def _has_one_kind_of_window(self) -> Self:
        if self.hop_s is not None and self.session_gap_s is not None:
            raise ValueError("expected hop_s or session_gap_s, but not both")
        if self.hop_s is not None:
            panes = self.window_s / self.hop_s
            if not 1 <= round(panes) <= MAX_PANES or abs(panes - round(panes)) > _WHOLE:
                raise ValueError(
                    f"expected window_s to be 1 to {MAX_PANES} times hop_s, not {panes:g} times: change hop_s"
                )
        return self

    def tail_s(self, interval_s: float) -> float:
        """Return the length in seconds of the last windows, from which a new owner rebuilds the rule's state."""
        return TAIL_WINDOWS * max(self.window_s, (self.min_readings + 1) * interval_s)

    @abc.abstractmethod
    def watch(self, sensor: str, config: SensorConfig | None) -> WindowWatch:
        """Create the state of the rule for one sensor. ``config`` is None for a sensor that the site does not
        have."""


class WindowWatch(abc.ABC):
    """State of a sensor rule that examines time windows of readings."""

    @abc.abstractmethod
    def step(self, window: ReadingWindow) -> Happening | None:
        """Process the next closed window that has enough readings, and return the situation that begins in this
        window, or None."""

    def rearm(self) -> None:  # noqa: B027  (a rule without a lasting condition has nothing to do)
        """If a condition still lasts, report it with the next window, although it began earlier.

        This method is called after a window outside of the rule's hours, and after a situation that begins during the
        cooldown.
        """

    def copy(self) -> Self:
        """Return a copy whose state does not change while this object processes more windows. A subclass with
        containers in its state must override this method."""
        return copy.copy(self)


class ReadingHappening(NamedTuple):
    """A situation that a rule over single readings has recognised.

    ``cause_ns`` identifies the situation among all situations of rule and sensor, and ``at_ns`` is the time of the
    event, both in Unix ns.
    """

    happening: Happening
    cause_ns: int
    at_ns: int


class ReadingRule(SensorRule):
    """Base of the rules over the single readings of a sensor."""

    @abc.abstractmethod
    def watch(self, sensor: str, config: SensorConfig | None) -> ReadingWatch:
        """Create the state of the rule for one sensor. ``config`` is None for a sensor that the site does not
        have."""


class ReadingWatch(abc.ABC):
    """State of a rule over single readings.

    The caller applies the rule's hours and cooldown, and calls ``rearm`` for a situation that is not reported.
    """

    @abc.abstractmethod
    def step(self, column: Column) -> Iterable[ReadingHappening]:
        """Process the next readings, at least one, and return the situations that they cause."""

    @property
    def due_ns(self) -> int | None:
        """Time in Unix ns, by the sensor's clock, at which ``due`` must be called if no reading comes before; None
        for never."""
        return None

    def due(self, now_ns: int) -> Iterable[ReadingHappening]:
        """Return the situations to report at the sensor's present time, which is at least ``due_ns``, although no
        reading has come."""
        return ()

    def rearm(self) -> None:  # noqa: B027
        """If a condition still lasts, report it again with the next readings."""
