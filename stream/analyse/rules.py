"""A rule and what it remembers of each track. Pure."""

from __future__ import annotations

import math
from collections import Counter
from typing import NamedTuple

from ingest.site import LineRule, ZoneRule, to_pixels
from stream.analyse.lines import LineCounter, LineWatch
from stream.analyse.tracking.tracker import Track
from stream.analyse.zones import ZoneWatch


class Happening(NamedTuple):
    """What is to be told: a line's direction or a zone's seconds, for the ``number``-th time of this track."""

    what: str | float
    number: int


class RuleWatch:
    """One rule, in pictures of one size."""

    def __init__(self, rule: LineRule | ZoneRule, width: int, height: int) -> None:
        self.rule = rule
        self._watch = _watch(rule, width, height)
        self._cooldown_ns = round(rule.cooldown_s * 1e9)
        self._counts: Counter[str] = Counter()
        self._quiet_until_ns: dict[str, int] = {}

    def step(self, track: Track, at_ns: int, told: bool = False) -> Happening | None:
        """Take a track in the next frame, at ``at_ns`` of a time that never goes back, and return what is to be told.

        What it is taken for, and how surely, decides about the telling alone: where it is counts in every frame.
        ``told`` says that an event of this track, rule and frame is out already.
        """
        watched = self.rule.watches(track.label, track.score)
        quiet = at_ns < self._quiet_until_ns.get(track.name, 0)
        what = self._watch.step(track.name, track.box.centre, at_ns, watched=watched, quiet=quiet)
        if told:
            self._watch.settle(track.name)
        elif what is None:
            return None
        self._counts[track.name] += 1
        self._quiet_until_ns[track.name] = at_ns + self._cooldown_ns
        return None if told or what is None else Happening(what, self._counts[track.name])

    def forget(self, track: str) -> None:
        """Forget a track that is over."""
        self._watch.forget(track)
        self._counts.pop(track, None)
        self._quiet_until_ns.pop(track, None)


def _watch(rule: LineRule | ZoneRule, width: int, height: int) -> LineWatch | ZoneWatch:
    if isinstance(rule, ZoneRule):
        return ZoneWatch(to_pixels(rule.polygon, width, height), rule.dwell_s)
    start, end = to_pixels((rule.start, rule.end), width, height)
    return LineWatch(LineCounter(start, end, math.hypot(width, height)), rule.direction)
