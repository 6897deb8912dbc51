"""The state of one sensor: the filter of its readings, and the state of its rules. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ingest.contract.records import Event, JoinSignal, Measure, Readings
from ingest.site import ALLOWED_LATENESS_S, SensorConfig
from stream.join.rule import SIGNAL_NS, JoinRule
from stream.sense.clean import Cleaner
from stream.sense.minutes import SensorMinutes
from stream.sense.reporting import RuleReporter, make_reporter
from stream.sense.rule import SensorRule

_TICK_NS = 1000
"""Maximum rounding error in ns of a deadline, which is a float in seconds. A monotonic time as a float has a
resolution of 15 ps after a day of uptime, and of 60 ns after ten years."""


class SensorCounts(NamedTuple):
    """Dropped readings by reason, late readings by rule name, and restarts of windows by rule name. The three
    mappings leave out counts of 0."""

    dropped: Mapping[str, int]
    late: Mapping[str, int]
    set_back: Mapping[str, int]


NO_COUNTS = SensorCounts({}, {}, {})


class SensorWatch:
    """State of one sensor. ``config`` is None for a sensor that the site does not have."""

    def __init__(
        self,
        sensor: str,
        config: SensorConfig | None,
        rules: Iterable[SensorRule],
        joins: Sequence[JoinRule] = (),
    ) -> None:
        self._sensor = sensor
        self._config = config
        self._cleaner = Cleaner(config)
        self._joins, self._signals = joins, list[JoinSignal]()
        self._last = (0, 0)
        """Epoch and number of the last reading."""
        self._signalled_s = 0.0
        """Monotonic time in seconds at which the last signal was made for a rule that joins this sensor with a
        camera."""
        self._latest: tuple[int, float] | None = None
        self._wait_s = config.max_delay_s if config else 0.0
        self._minutes = SensorMinutes(config) if config and config.measure else None
        self._measures: list[Measure] = []
        self._set([make_reporter(rule, sensor, config) for rule in rules])

    def use(self, config: SensorConfig | None, rules: Sequence[SensorRule], joins: Sequence[JoinRule] = ()) -> None:
        """Use another configuration. A rule keeps its state if neither the rule nor its sensor has changed."""
        self._joins = joins
        before = self._reporters if config == self._config else []
        if config != self._config:
            self._minutes = SensorMinutes(config) if config and config.measure else None
        self._config = config
        self._wait_s = config.max_delay_s if config else 0.0
        self._cleaner.use(config)
        kept = [next((one for one in before if one.rule.same_as(rule)), None) for rule in rules]
        self._set([one or make_reporter(rule, self._sensor, config) for one, rule in zip(kept, rules, strict=True)])

    def _set(self, reporters: list[RuleReporter]) -> None:
        self._reporters = reporters
        self._windows = [(one.rule.name, one.windows) for one in reporters if one.windows]

    def take_counts(self) -> SensorCounts:
        """Return the counts since the last call."""
        if not self._cleaner.dropped and not any(one.late or one.set_back for _, one in self._windows):
            return NO_COUNTS
        counts = SensorCounts(
            self._cleaner.dropped,
            {rule: one.late for rule, one in self._windows if one.late},
            {rule: one.set_back for rule, one in self._windows if one.set_back},
        )
        self._cleaner.dropped = Counter()
        for _, one in self._windows:
            one.late = one.set_back = 0
        return counts

    @property
    def takes_columns(self) -> bool:
        """Whether the events are the same however consecutive readings are divided into records.

        With more than the usual lateness, a window may wait until a column has readings far behind its end. A rule
        that joins the sensor with a camera sees only the last time of each record, so that a pause of more than
        ``valid_s`` within a record is lost.
        """
        lateness_s = self._config.lateness_s if self._config else 0.0
        return (
            not self._joins
            and lateness_s <= ALLOWED_LATENESS_S
            and all(one.rule.TAKES_COLUMNS for one in self._reporters)
        )

    @property
    def epoch(self) -> int:
        """The present epoch (run of the device), -1 before the first reading."""
        return self._cleaner.epoch

    @property
    def has_output(self) -> bool:
        """Whether ``take_signals`` or ``take_measures`` has something to return."""
        return bool(self._signals or self._measures)

    def take_signals(self) -> list[JoinSignal]:
        """Return the signals since the last call, for the rules that join this sensor with a camera."""
        taken, self._signals = self._signals, []
        return taken

    def take_measures(self) -> list[Measure]:
        """Return the minutes that were completed since the last call."""
        taken, self._measures = self._measures, []
        return taken

    def step(
        self, readings: Readings, written_ms: int, now_s: float, past: Collection[str] | None = None
    ) -> list[Event]:
        """Process the readings of the next record, and return the events that the sensor's rules emit.

        ``written_ms`` is the Unix time in ms at which the record was written. ``now_s`` is the present monotonic time
        in seconds. If an earlier owner of the partition has already processed the readings, ``past`` has the ids of
        the events that the owner wrote.
        """
        before = self._cleaner.epoch
        kept = self._cleaner.clean(readings, written_ms)
        if before not in (-1, self._cleaner.epoch):
            for one in self._reporters:
                one.begin_epoch()
            if self._minutes:
                self._minutes.begin_epoch()
        if not kept.values:
            return []
        if self._minutes:
            minutes = self._minutes.add(kept)
            self._measures += minutes if past is None else ()
        self._latest = kept.times_ns[-1], now_s
        self._last = readings.epoch, readings.last_seq
        if self._joins and past is None:
            self._signalled_s = now_s
            self._signals += [one.sensor_signal(readings.epoch, readings.last_seq, kept) for one in self._joins]
        events: list[Event] = []
        for one in self._reporters:
            events += one.step(kept, past)
        return events

    @property
    def deadline(self) -> float | None:
        """Monotonic time in seconds at which a rule must be evaluated although no reading comes; None if no rule
        waits."""
        window_s, silence_s = self._window_deadline, self._silence_deadline
        return min(window_s, silence_s) if window_s is not None and silence_s is not None else window_s or silence_s

    @property
    def _silence_deadline(self) -> float | None:
        """Monotonic time in seconds of the next signal that the sensor is silent; None if no rule waits for one."""
        if self._latest is None or not self._joins:
            return None
        arrived_s = self._latest[1]
        valid_s, wait_s = max(one.valid_s for one in self._joins), max(map(self._join_wait_s, self._joins))
        due_s = max(arrived_s + wait_s, self._signalled_s + SIGNAL_NS / 1e9)
        return due_s if due_s <= arrived_s + wait_s + valid_s else None

    def _join_wait_s(self, join: JoinRule) -> float:
        """Return the time in seconds for which a reading of the sensor may be delayed: the rule's ``wait_s``, or the
        agent's holding time if that is longer."""
        return max(join.wait_s, self._wait_s)

    @property
    def _window_deadline(self) -> float | None:
        pending_ns = [due for one in self._reporters if (due := one.due_ns) is not None]
        if self._latest is None or not pending_ns:
            return None
        latest_ns, arrived_s = self._latest
        return arrived_s + self._wait_s + max(min(pending_ns) - latest_ns, 0) / 1e9

    def tick(self, now_s: float) -> list[Event]:
        """Return the events of rules that must be evaluated although no reading comes.

        The sensor's present time is estimated as the time of its last reading plus the time since that reading
        arrived. A window is evaluated ``max_delay_s`` after the estimated time has passed the window's end plus the
        allowed lateness, because the agent may hold a reading back for ``max_delay_s``.
        """
        if self._latest is None:
            return []
        latest_ns, arrived_s = self._latest
        silence_s = self._silence_deadline
        if silence_s is not None and silence_s <= now_s:
            self._signalled_s = now_s
            for one in self._joins:
                at_ns = latest_ns + round(max(now_s - arrived_s - self._join_wait_s(one), 0.0) * 1e9)
                self._signals.append(one.silent_signal(*self._last, at_ns))
        # rounded up, so that the window is due at the deadline and not just after it
        sensor_ns = latest_ns + math.ceil(max(now_s - arrived_s - self._wait_s, 0.0) * 1e9 + _TICK_NS)
        return [event for one in self._reporters for event in one.due(sensor_ns)]
