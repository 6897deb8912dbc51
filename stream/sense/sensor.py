"""The state of one sensor: the filter of its readings, its windows and its rules. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple

import numpy as np

from ingest.contract.records import GOOD, Event, Readings
from ingest.site import SensorConfig
from stream.epochs import Admission, EpochGate
from stream.events import make_event
from stream.sense.rule import SensorRule, WindowWatch
from stream.sense.windows import Column, ReadingWindow, TumblingWindows

_TICK_NS = 1000
"""Maximum rounding error in ns of a deadline, which is a float in seconds. A monotonic time as a float has a
resolution of 15 ps after a day of uptime, and of 60 ns after ten years."""


class Cleaner:
    """A filter that drops repeated and impossible readings. ``dropped`` counts the dropped readings by reason.

    ``repeat``: the reading was processed before. ``old-epoch``: the reading's epoch is lower than the present epoch,
    which still runs (see ``EpochGate``). ``suspect``: the device has marked the reading as suspect. ``range``: the
    value is outside of the range that the sensor can measure.
    """

    def __init__(self, config: SensorConfig | None) -> None:
        self._gate = EpochGate()
        self.dropped: Counter[str] = Counter()
        self.use(config)

    def use(self, config: SensorConfig | None) -> None:
        """Use the measuring range of another configuration from now on."""
        self._low = config.low if config else float("-inf")
        self._high = config.high if config else float("inf")

    @property
    def epoch(self) -> int:
        """The present epoch, -1 before the first reading."""
        return self._gate.present

    def clean(self, readings: Readings, written_ms: int) -> Column:
        """Return the readings that are not dropped.

        ``written_ms`` is the Unix time in ms at which the record of the readings was written.
        """
        before = self._gate.last(readings.epoch)
        admission = self._gate.admit(
            readings.epoch, readings.last_seq, written_ms * 1_000_000, sensor=readings.sensor
        )
        repeats = min(max(before + 1 - readings.seq, 0), len(readings.values))
        self._drop("repeat", repeats)
        column = Column(readings.times_ns[repeats:], readings.values[repeats:])
        if admission is Admission.LOWER:
            self._drop("old-epoch", len(column.values))
            return Column((), ())
        quality = readings.quality[repeats:]
        return column if self._are_usable(column.values, quality) else self._filtered(column, quality)

    def _are_usable(self, values: Sequence[float], quality: Sequence[int]) -> bool:
        """Return whether no reading must be dropped. Also return False for a value of NaN, whose sum is NaN."""
        if not values:
            return True
        return (
            not any(quality) and not math.isnan(sum(values)) and self._low <= min(values) <= max(values) <= self._high
        )

    def _filtered(self, column: Column, quality: Sequence[int]) -> Column:
        """Drop suspect readings and readings outside of the sensor's range."""
        good, values = np.array(quality) == GOOD, np.array(column.values)
        in_range = (self._low <= values) & (values <= self._high)  # NaN is outside of every range
        kept = (good & in_range).tolist()
        self._drop("suspect", int(np.count_nonzero(~good)))
        self._drop("range", int(np.count_nonzero(good & ~in_range)))
        return Column(tuple(compress(column.times_ns, kept)), tuple(compress(column.values, kept)))

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] += count


class SensorCounts(NamedTuple):
    """Dropped readings by reason, late readings by rule name, and restarts of windows by rule name. No count is 0."""

    dropped: Mapping[str, int]
    late: Mapping[str, int]
    set_back: Mapping[str, int]


@dataclass
class RuleWindows:
    """State of one rule for one sensor: its windows, the rule's own state, and the last event."""

    rule: SensorRule
    windows: TumblingWindows
    state: WindowWatch
    reported_ns: int | None = None
    """Beginning of the last window that caused an event, in Unix ns."""


class SensorWatch:
    """State of one sensor. ``config`` is None for a sensor that the site does not have."""

    def __init__(self, sensor: str, config: SensorConfig | None, rules: Iterable[SensorRule]) -> None:
        self._sensor = sensor
        self._config = config
        self._site = config.site if config else ""
        self._cleaner = Cleaner(config)
        self._latest: tuple[int, float] | None = None
        self._wait_s = config.max_delay_s if config else 0.0
        self._watches = [self._new(rule) for rule in rules]

    def use(self, config: SensorConfig | None, rules: Iterable[SensorRule]) -> None:
        """Use another configuration. A rule keeps its state if neither the rule nor its sensor has changed."""
        before = self._watches if config == self._config else []
        self._config, self._site = config, config.site if config else ""
        self._wait_s = config.max_delay_s if config else 0.0
        self._cleaner.use(config)
        self._watches = [
            next((watch for watch in before if watch.rule.same_as(rule)), None) or self._new(rule) for rule in rules
        ]

    def _new(self, rule: SensorRule) -> RuleWindows:
        return RuleWindows(rule, TumblingWindows(rule.window_s), rule.watch(self._sensor, self._config))

    def take_counts(self) -> SensorCounts:
        """Return the counts since the last call."""
        counts = SensorCounts(
            self._cleaner.dropped,
            {watch.rule.name: watch.windows.late for watch in self._watches if watch.windows.late},
            {watch.rule.name: watch.windows.set_back for watch in self._watches if watch.windows.set_back},
        )
        if any(counts):
            self._cleaner.dropped = Counter()
            for watch in self._watches:
                watch.windows.late = watch.windows.set_back = 0
        return counts

    def step(self, readings: Readings, written_ms: int, now_s: float) -> list[Event]:
        """Process the readings of the next record, and return the events that the sensor's rules emit.

        ``written_ms`` is the Unix time in ms at which the record was written. ``now_s`` is the present monotonic time
        in seconds.
        """
        before = self._cleaner.epoch
        kept = self._cleaner.clean(readings, written_ms)
        restarted = before not in (-1, self._cleaner.epoch)
        if kept.values:
            self._latest = kept.times_ns[-1], now_s
        events: list[Event] = []
        for watch in self._watches:
            if restarted:
                watch.windows.begin_epoch()
            events += self._events(watch, watch.windows.add(kept))
        return events

    @property
    def deadline(self) -> float | None:
        """Monotonic time in seconds at which a window must be evaluated although no reading has closed it; None if no
        window waits."""
        pending_ns = [due for watch in self._watches if (due := watch.windows.pending_ns) is not None]
        if self._latest is None or not pending_ns:
            return None
        latest_ns, arrived_s = self._latest
        return arrived_s + self._wait_s + max(min(pending_ns) - latest_ns, 0) / 1e9

    def tick(self, now_s: float) -> list[Event]:
        """Return the events of windows that must be evaluated although no reading has closed them.

        The sensor's present time is estimated as the time of its last reading plus the time since that reading
        arrived. A window is evaluated ``max_delay_s`` after the estimated time has passed the window's end plus the
        allowed lateness, because the agent may hold a reading back for ``max_delay_s``.
        """
        if self._latest is None:
            return []
        latest_ns, arrived_s = self._latest
        # rounded up, so that the window is due at the deadline and not just after it
        sensor_ns = latest_ns + math.ceil(max(now_s - arrived_s - self._wait_s, 0.0) * 1e9 + _TICK_NS)
        return [event for watch in self._watches for event in self._events(watch, watch.windows.due(sensor_ns))]

    def _events(self, watch: RuleWindows, closed: Iterable[ReadingWindow]) -> list[Event]:
        """Return the events that a rule emits for windows.

        A window causes at most one event, even if the window was evaluated before it had all its readings. Outside of
        its hours, a rule begins anew with each window, so that it reports a condition that still holds when the hours
        begin.
        """
        rule, name = watch.rule, self._sensor
        events = []
        for window in closed:
            if not rule.in_force(window.start_ns):
                watch.state = rule.watch(name, self._config)
                continue
            happening = watch.state.step(window) if window.count >= rule.min_readings else None
            if happening and watch.reported_ns != window.start_ns:
                cause = (window.start_ns,)
                place = self._config.place if self._config else None
                own = make_event(
                    rule, happening, name, cause, window.start_ns, site=self._site, place=place, sensor=name
                )
                events.append(own)
                watch.reported_ns = window.start_ns
        return events
