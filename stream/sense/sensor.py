"""The state of one sensor: the filter of its readings, its windows and its rules. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from ingest.contract.records import GOOD, Event, Readings
from ingest.site import SensorConfig
from stream.epochs import Admission, EpochGate
from stream.events import make_event
from stream.sense.rule import SensorRule, WindowWatch
from stream.sense.windows import ReadingWindow, TumblingWindows

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

    def clean(self, readings: Readings, written_ms: int) -> list[tuple[int, float]]:
        """Return the readings that are not dropped, as (Unix ns, value).

        ``written_ms`` is the Unix time in ms at which the record of the readings was written.
        """
        kept: list[tuple[int, float]] = []
        before = self._gate.last(readings.epoch)
        admission = self._gate.admit(
            readings.epoch, readings.last_seq, written_ms * 1_000_000, sensor=readings.sensor
        )
        rows = zip(readings.times_ns, readings.values, readings.quality, strict=True)
        for seq, (at_ns, value, quality) in enumerate(rows, readings.seq):
            if seq <= before:
                reason = "repeat"
            elif admission is Admission.LOWER:
                reason = "old-epoch"
            else:
                reason = self._reason(value, quality)
            if reason:
                self.dropped[reason] += 1
            else:
                kept.append((at_ns, value))
        return kept

    def _reason(self, value: float, quality: int) -> str:
        if quality != GOOD:
            return "suspect"
        if not self._low <= value <= self._high:  # NaN is outside of every range
            return "range"
        return ""


class SensorWatch:
    """State of one sensor. ``config`` is None for a sensor that the site does not have."""

    def __init__(self, sensor: str, config: SensorConfig | None, rules: Iterable[SensorRule]) -> None:
        self._sensor = sensor
        self._config = config
        self._site = config.site if config else ""
        self._cleaner = Cleaner(config)
        self._latest: tuple[int, float] | None = None
        self._reported: dict[str, int] = {}
        self._wait_s = config.max_delay_s if config else 0.0
        self._watches = [self._new(rule) for rule in rules]

    def use(self, config: SensorConfig | None, rules: Iterable[SensorRule]) -> None:
        """Use another configuration. A rule keeps its state if neither the rule nor its sensor has changed."""
        before = self._watches if config == self._config else []
        self._config, self._site = config, config.site if config else ""
        self._wait_s = config.max_delay_s if config else 0.0
        self._cleaner.use(config)
        self._watches = [
            next((watch for watch in before if watch[0].same_as(rule)), None) or self._new(rule) for rule in rules
        ]

    def _new(self, rule: SensorRule) -> tuple[SensorRule, TumblingWindows, WindowWatch]:
        self._reported.pop(rule.name, None)
        return rule, TumblingWindows(rule.window_s), rule.watch(self._sensor, self._config)

    def counts(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """Return three counts: dropped readings by reason, late readings by rule name, and restarts of windows by
        rule name."""
        late = Counter({rule.name: windows.late for rule, windows, _ in self._watches})
        set_back = Counter({rule.name: windows.set_back for rule, windows, _ in self._watches})
        return self._cleaner.dropped.copy(), late, set_back

    def step(self, readings: Readings, written_ms: int, now_s: float) -> list[Event]:
        """Process the readings of the next record, and return the events that the sensor's rules emit.

        ``written_ms`` is the Unix time in ms at which the record was written. ``now_s`` is the present monotonic time
        in seconds.
        """
        before = self._cleaner.epoch
        kept = self._cleaner.clean(readings, written_ms)
        restarted = before not in (-1, self._cleaner.epoch)
        if kept:
            self._latest = kept[-1][0], now_s
        events: list[Event] = []
        for rule, windows, watch in self._watches:
            if restarted:
                windows.begin_epoch()
            events += self._events(rule, watch, windows.add(kept))
        return events

    @property
    def deadline(self) -> float | None:
        """Monotonic time in seconds at which a window must be evaluated although no reading has closed it; None if no
        window waits."""
        pending_ns = [due for _, windows, _ in self._watches if (due := windows.pending_ns) is not None]
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
        return [
            event
            for rule, windows, watch in self._watches
            for event in self._events(rule, watch, windows.due(sensor_ns))
        ]

    def _events(self, rule: SensorRule, watch: WindowWatch, windows: Iterable[ReadingWindow]) -> list[Event]:
        """Return the events that a rule emits for windows.

        A window causes at most one event, even if the window was evaluated before it had all its readings.
        """
        events = []
        for window in windows:
            happening = watch.step(window) if window.count >= rule.min_readings else None
            if happening and rule.in_force(window.start_ns) and self._reported.get(rule.name) != window.start_ns:
                cause, name = (window.start_ns,), self._sensor
                events.append(make_event(rule, happening, name, cause, window.start_ns, site=self._site, sensor=name))
                self._reported[rule.name] = window.start_ns
        return events
