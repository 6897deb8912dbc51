"""What one camera's results on one lane mean. Pure: a function of the results, in their order."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator

from ingest.contract.records import Event, Overlay, Point, Result
from ingest.site import LineRule, ZoneRule
from stream.analyse.events import event_of, shape_of
from stream.analyse.rules import RuleWatch
from stream.analyse.told import Sighting, Told
from stream.analyse.tracking.scale import Scale
from stream.analyse.tracking.stationary import Standing, View
from stream.analyse.tracking.tracker import Track, Tracker
from stream.analyse.tracking.tracktime import TrackTime

TRAIL_POINTS = 20
TRACK_IDLE_S = 10.0
"""What rules remember of a track goes after so long without it."""


class Analyser:
    """Tracks and rules of one camera, lane and pipeline. A new epoch begins with nothing tracked.

    ``told`` is what an earlier owner may have told of these results: it is taken for done, and never told again.
    """

    def __init__(
        self,
        rules: Iterable[LineRule | ZoneRule],
        site: str,
        make_tracker: Callable[[], Tracker],
        told: Told | None = None,
    ) -> None:
        self._rules = tuple(rules)
        self._site = site
        self._make_tracker = make_tracker
        self._told = told or {}
        self._mark: tuple[int, int] = (-1, -1)
        self._begin()

    def step(self, result: Result) -> list[Event]:
        """Take the next result and return the events that it makes. A repeat makes none.

        Raise ValueError, or what else the tracker raises, for detections that cannot be followed.
        """
        if (result.epoch, result.seq) <= self._mark:
            return []
        if result.epoch != self._mark[0]:
            self._begin()
        self._mark = (result.epoch, result.seq)
        at_s = self._time.advance(result)
        if result.outcome == "classified":
            return list(self._look(result, at_s))
        return list(self._wait(result, at_s)) if result.motion == () else []  # else it was not looked at

    def _begin(self) -> None:
        self._tracker = self._make_tracker()
        self._time = TrackTime()
        self._size: tuple[int, int] | None = None
        self._watches: tuple[RuleWatch, ...] = ()
        self._trails: dict[str, deque[Point]] = defaultdict(lambda: deque(maxlen=TRAIL_POINTS))
        self._seen_s: dict[str, float] = {}
        self._standing = Standing()

    def _look(self, result: Result, at_s: float) -> Iterator[Event]:
        scale = self._scale((result.width, result.height))
        view = View.of(result, scale)
        detections = self._standing.whole(scale.detections(result.detections), view)
        holds = self._standing.holds(view, at_s, self._time.lived_ns, detections)
        tracks = self._tracker.step(detections, at_s, f"{result.epoch}-{result.seq}", holds)
        for track in [track for track in tracks if not track.held]:
            self._trails[track.name].append(track.box.centre)
            self._seen_s[track.name] = at_s
            rests = self._standing.seen(track, view, at_s, self._time.lived_ns)
            yield from self._judge(result, track, scale, self._zones() if rests else self._watches)
        self._standing.missed(view, {track.name for track in tracks if not track.held}, self._time.lived_ns)
        yield from self._stay(result, [track.name for track in tracks if track.held], at_s, scale)
        self._forget(at_s)

    def _wait(self, result: Result, at_s: float) -> Iterator[Event]:
        """Take a frame in which nothing moved: the tracks' time stands still."""
        if self._size is not None:
            scale = self._scale((result.width, result.height))
            holds = self._standing.holds(View.of(result, scale), at_s, self._time.lived_ns)
            yield from self._stay(result, [hold.track for hold in holds], at_s, scale)

    def _stay(self, result: Result, held: Iterable[str], at_s: float, scale: Scale) -> Iterator[Event]:
        """Take tracks that stand where they were."""
        for name in held:
            self._seen_s[name] = at_s
        for track in self._standing.held(held, at_s):
            yield from self._judge(result, track, scale, self._zones())

    def _zones(self) -> list[RuleWatch]:
        """Return the rules for what rests, or is not seen. It crosses no line, though another part of it be found."""
        return [watch for watch in self._watches if isinstance(watch.rule, ZoneRule)]

    def _scale(self, size: tuple[int, int]) -> Scale:
        """Return the scale of a picture to the epoch's first one, in whose pixels the rules' shapes are made once."""
        scale = Scale.between(size, self._size or size)
        if self._size is None:
            self._size = size
            self._watches = tuple(RuleWatch(rule, *size) for rule in self._rules)
        return scale

    def _judge(self, result: Result, track: Track, scale: Scale, watches: Iterable[RuleWatch]) -> Iterator[Event]:
        box = scale.back(track.box)
        out = self._told.get((result.epoch, result.seq), ())
        for watch in watches:
            rule = watch.rule
            told = bool(out) and Sighting.of(rule.name, track.label, box) in out
            happening = watch.step(track, self._time.lived_ns, told)
            if happening:
                trail = scale.trail_back(self._trails[track.name])
                overlay = Overlay(shape=shape_of(rule, result), box=box, trail=trail)
                yield event_of(rule, result, track, happening, overlay, self._site)

    def _forget(self, now_s: float) -> None:
        for name in [n for n, seen_s in self._seen_s.items() if now_s - seen_s > TRACK_IDLE_S]:
            del self._seen_s[name], self._trails[name]
            self._standing.forget(name)
            for watch in self._watches:
                watch.forget(name)
