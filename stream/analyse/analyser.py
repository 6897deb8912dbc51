"""What one camera's results on one lane mean. Pure: a function of the results, in their order."""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable

from ingest.records import Event, Overlay, Point, Result
from ingest.site import LineRule, ZoneRule, to_pixels
from stream.analyse.events import line_event, zone_event
from stream.analyse.lines import LineCounter
from stream.analyse.tracker import Track, Tracker
from stream.analyse.zones import ZoneWatch

__all__ = ["Analyser"]

STILL = frozenset({"still", "rate", "masked", "schedule"})
"""Reasons to withhold a frame after which the scene is as it was: tracks hold, and their time stands still."""
HELD_STEP_S = 0.2
"""Across such a gap the tracker's time moves on by no more than this."""
TRAIL_POINTS = 20
TRACK_IDLE_S = 10.0
"""What rules remember of a track goes after so long without it."""


class Analyser:
    """Tracks and rules of one camera, lane and pipeline. A new epoch begins with nothing tracked."""

    def __init__(self, rules: Iterable[LineRule | ZoneRule], site: str, make_tracker: Callable[[], Tracker]) -> None:
        self._rules = tuple(rules)
        self._site = site
        self._make_tracker = make_tracker
        self._mark: tuple[int, int] = (-1, -1)
        self._begin()

    def step(self, result: Result) -> list[Event]:
        """Take the next result and return the events that it makes. A repeat makes none."""
        if (result.epoch, result.seq) <= self._mark:
            return []
        if result.epoch != self._mark[0]:
            self._begin()
        self._mark = (result.epoch, result.seq)
        if result.outcome != "classified":
            return []  # not looked at, or nothing moved: tracks hold
        at_s = self._advance(result)
        tracks = self._tracker.step(result.detections, at_s, f"{result.epoch}-{result.seq}")
        events: list[Event] = []
        for track in tracks:
            self._trails[track.name].append(track.box.centre)
            self._seen_s[track.name] = at_s
            for rule in self._rules:
                event = self._judge(rule, result, track)
                if event:
                    events.append(event)
        self._forget(at_s)
        return events

    def _begin(self) -> None:
        self._tracker = self._make_tracker()
        self._lines: dict[str, LineCounter] = {}
        self._zones: dict[str, ZoneWatch] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._quiet_until_ns: dict[tuple[str, str], int] = {}
        self._trails: dict[str, deque[Point]] = defaultdict(lambda: deque(maxlen=TRAIL_POINTS))
        self._seen_s: dict[str, float] = {}
        self._time_s = 0.0
        self._last_ns: int | None = None

    def _advance(self, result: Result) -> float:
        """Return the tracker's time of a frame: the camera's, but for gaps in which nothing happened."""
        step_s = 0.0 if self._last_ns is None else (result.captured_ns - self._last_ns) / 1e9
        if result.withheld and STILL.issuperset(result.withheld):
            step_s = min(step_s, HELD_STEP_S)
        self._last_ns = result.captured_ns
        self._time_s += max(step_s, 1e-3)  # two frames never have the same time, whatever the camera's clock does
        return self._time_s

    def _judge(self, rule: LineRule | ZoneRule, result: Result, track: Track) -> Event | None:
        if not rule.watches(track.label, track.score):
            return None
        shape, happened = self._look(rule, result, track)
        key = (rule.name, track.name)
        if happened is None or result.captured_ns < self._quiet_until_ns.get(key, 0):
            return None
        self._counts[key] += 1
        self._quiet_until_ns[key] = result.captured_ns + round(rule.cooldown_s * 1e9)
        overlay = Overlay(shape=shape, box=track.box, trail=tuple(self._trails[track.name]))
        if isinstance(rule, LineRule):
            return line_event(rule, result, track, str(happened), self._counts[key], overlay, self._site)
        return zone_event(rule, result, track, float(happened), self._counts[key], overlay, self._site)

    def _look(
        self, rule: LineRule | ZoneRule, result: Result, track: Track
    ) -> tuple[tuple[Point, ...], str | float | None]:
        """Return the rule's shape in pixels, and the direction or the seconds when something has happened."""
        if isinstance(rule, ZoneRule):
            polygon = to_pixels(rule.polygon, result.width, result.height)
            zone = self._zones.setdefault(rule.name, ZoneWatch(polygon, rule.dwell_s))
            return polygon, zone.step(track.name, track.box.centre, result.captured_ns)
        line = to_pixels((rule.start, rule.end), result.width, result.height)
        diagonal_px = math.hypot(result.width, result.height)
        counter = self._lines.setdefault(rule.name, LineCounter(line[0], line[1], diagonal_px))
        direction = counter.step(track.name, track.box.centre)
        return line, direction if rule.direction in ("both", direction) else None

    def _forget(self, now_s: float) -> None:
        for name in [n for n, seen_s in self._seen_s.items() if now_s - seen_s > TRACK_IDLE_S]:
            del self._seen_s[name], self._trails[name]
            for line in self._lines.values():
                line.forget(name)
            for zone in self._zones.values():
                zone.forget(name)
            for rule in self._rules:
                self._counts.pop((rule.name, name), None)
                self._quiet_until_ns.pop((rule.name, name), None)
