"""The state of one rule for one sensor: which recognised situations become events, and the evaluation of corrected
windows. Pure."""

from __future__ import annotations

import abc
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from ingest.contract.records import Event
from ingest.site import ALLOWED_LATENESS_S, SensorConfig
from stream.events import make_event
from stream.rules import Happening
from stream.sense.hopping import HoppingWindows
from stream.sense.rule import ReadingHappening, ReadingRule, SensorRule, WindowRule, WindowWatch
from stream.sense.sessions import SessionWindows
from stream.sense.windows import Column, EventTimeWindows, ReadingWindow, TumblingWindows

MAX_REPORTED = 1000
"""Number of causes of events that are remembered, so that a cause makes one event only."""


class RuleReporter(abc.ABC):
    """State of one rule for one sensor. ``windows`` is None for a rule without windows."""

    rule: SensorRule
    windows: EventTimeWindows | None = None

    def __init__(self, sensor: str, config: SensorConfig | None) -> None:
        self._sensor, self._site, self._place = (
            sensor,
            config.site if config else "",
            config.place if config else None,
        )
        self._last_ns: int | None = None
        """Time of the last event, in Unix ns."""
        self._reported: dict[int, None] = {}

    @abc.abstractmethod
    def step(self, column: Column, past: Collection[str] | None) -> list[Event]:
        """Process the next readings, at least one, and return the events.

        While a new owner rebuilds the state from past readings, ``past`` has the ids of the events that the previous
        owner wrote. During the rebuild, only events in ``past`` begin a cooldown.
        """

    @abc.abstractmethod
    def due(self, now_ns: int) -> list[Event]:
        """Return the events that are due because no reading comes. ``now_ns`` is the estimated present time of the
        sensor."""

    @property
    @abc.abstractmethod
    def due_ns(self) -> int | None:
        """Time in Unix ns, by the sensor's clock, at which ``due`` must be called; None for never."""

    def begin_epoch(self) -> None:  # noqa: B027
        """Note that the device was restarted."""

    def is_quiet(self, at_ns: int) -> bool:
        """Return whether the cooldown of the last event is still running at ``at_ns``."""
        return self._last_ns is not None and 0 <= at_ns - self._last_ns < self.rule.cooldown_s * 1e9

    def event(self, happening: Happening, cause_ns: int, at_ns: int, past: Collection[str] | None) -> Event | None:
        """Return the event that reports a recognised situation; None if its cause has already made an event."""
        if cause_ns in self._reported:
            return None
        event = make_event(
            self.rule,
            happening,
            self._sensor,
            (cause_ns,),
            at_ns,
            site=self._site,
            place=self._place,
            sensor=self._sensor,
        )
        if past is None or event.id in past:
            self._last_ns = at_ns
        self._reported[cause_ns] = None
        if len(self._reported) > MAX_REPORTED:
            del self._reported[next(iter(self._reported))]
        return event


class WindowReporter(RuleReporter):
    """State of a rule over windows.

    If readings arrive late but within the sensor's ``lateness_s``, they correct a window that was evaluated before.
    After a correction, the rule evaluates the corrected window and all later windows again. Before the second
    evaluation, the rule is set back to its state before the corrected window.
    """

    rule: WindowRule

    def __init__(self, rule: WindowRule, sensor: str, config: SensorConfig | None) -> None:
        super().__init__(sensor, config)
        self.rule = rule
        lateness_s = config.lateness_s if config else ALLOWED_LATENESS_S
        self.windows = self._windows = _make_windows(rule, lateness_s)
        self._corrects = lateness_s > ALLOWED_LATENESS_S and rule.session_gap_s is None
        self._kept_ns = round((lateness_s + 2 * rule.window_s) * 1e9)
        self._state = rule.watch(sensor, config)
        self._latest_ns = 0
        self._evaluated: list[tuple[ReadingWindow, WindowWatch]] = []
        """The windows that may still be corrected, with the rule's state before each window."""

    def step(self, column: Column, past: Collection[str] | None) -> list[Event]:
        """Process the next readings, and return the events of the windows that they close or correct."""
        closed = self._windows.add(column)
        if not self._corrects:
            return self._events(closed, past) if closed else []
        if self._windows.set_back:
            self._latest_ns = 0
        self._latest_ns = max(self._latest_ns, *column.times_ns)
        changed = [window for window in closed if window.count > window.seen]
        changed += self._windows.due(self._latest_ns)
        changed.sort(key=lambda window: window.start_ns)
        return self._events(self._in_order(changed), past) if changed else []

    def due(self, now_ns: int) -> list[Event]:
        """Return the events of windows that must be evaluated although no reading has closed them."""
        found = self._windows.due(now_ns)
        return self._events(self._in_order(found) if self._corrects else found, None)

    @property
    def due_ns(self) -> int | None:
        """Time at which the oldest window with new readings is due."""
        return self._windows.pending_ns

    def begin_epoch(self) -> None:
        """Note that the device was restarted. The next reading may come from a clock that was set back."""
        self._windows.begin_epoch()

    def _events(self, windows: Iterable[ReadingWindow], past: Collection[str] | None) -> list[Event]:
        """Return the events that the rule emits for windows.

        A window causes at most one event, even if it was evaluated before it had all its readings. A condition that
        still holds when the rule's hours begin, or when its cooldown ends, is reported at that moment.
        """
        rule = self.rule
        events: list[Event] = []
        min_readings, has_hours = rule.min_readings, bool(rule.hours)
        for window in windows:
            state = self._state  # the state before this window, if the window is corrected
            happening = state.step(window) if window.count >= min_readings else None
            if happening is None and not has_hours:
                continue
            if not rule.in_force(window.start_ns) or (happening and self.is_quiet(window.start_ns)):
                state.rearm()
            elif happening and (event := self.event(happening, window.start_ns, window.start_ns, past)):
                events.append(event)
        return events

    def _in_order(self, windows: Iterable[ReadingWindow]) -> Iterator[ReadingWindow]:
        """Yield windows to evaluate: each corrected window, then again all windows after the corrected window.

        Whenever a window is yielded, the rule has the state that it had after the previous window.
        """
        for window in windows:
            at = bisect_left(self._evaluated, window.start_ns, key=lambda pair: pair[0].start_ns)
            again = self._evaluated[at:]
            if again:
                self._state = again[0][1]
                del self._evaluated[at:]
            rest = [one for one, _ in again if one.start_ns != window.start_ns]
            for one in (window, *rest):
                self._evaluated.append((one, self._state.copy()))
                yield replace(one)
        if self._evaluated:
            oldest_ns = self._evaluated[-1][0].start_ns - self._kept_ns
            self._evaluated = [pair for pair in self._evaluated if pair[0].start_ns >= oldest_ns]


class ReadingReporter(RuleReporter):
    """State of a rule over single readings."""

    rule: ReadingRule

    def __init__(self, rule: ReadingRule, sensor: str, config: SensorConfig | None) -> None:
        super().__init__(sensor, config)
        self.rule = rule
        self._state = rule.watch(sensor, config)

    def step(self, column: Column, past: Collection[str] | None) -> list[Event]:
        """Process the next readings, and return the events that they cause."""
        return self._events(self._state.step(column), past)

    def due(self, now_ns: int) -> list[Event]:
        """Return the events that are due because no reading comes."""
        due_ns = self._state.due_ns
        return [] if due_ns is None or due_ns > now_ns else self._events(self._state.due(now_ns), None)

    @property
    def due_ns(self) -> int | None:
        """Time in Unix ns at which the rule reports that no reading comes."""
        return self._state.due_ns

    def _events(self, found: Iterable[ReadingHappening], past: Collection[str] | None) -> list[Event]:
        events = []
        for happening, cause_ns, at_ns in found:
            if not self.rule.in_force(at_ns) or self.is_quiet(at_ns):
                self._state.rearm()
            elif event := self.event(happening, cause_ns, at_ns, past):
                events.append(event)
        return events


def make_reporter(rule: SensorRule, sensor: str, config: SensorConfig | None) -> RuleReporter:
    """Return the state of a rule for one sensor. Raise TypeError for a rule that is neither a WindowRule nor a
    ReadingRule."""
    if isinstance(rule, WindowRule):
        return WindowReporter(rule, sensor, config)
    if isinstance(rule, ReadingRule):
        return ReadingReporter(rule, sensor, config)
    raise TypeError(f"rule {rule.name} is a {type(rule).__name__}: expected a subclass of WindowRule or ReadingRule")


def _make_windows(rule: WindowRule, lateness_s: float) -> EventTimeWindows:
    if rule.hop_s is not None:
        return HoppingWindows(rule.window_s, rule.hop_s, lateness_s)
    if rule.session_gap_s is not None:
        return SessionWindows(rule.window_s, rule.session_gap_s, lateness_s)
    return TumblingWindows(rule.window_s, lateness_s)
