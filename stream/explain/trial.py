"""Run rules over stored results, and compare their events with the events that were emitted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

from ingest.contract import headers as h
from ingest.contract.codec import MAX_JSON_BYTES, decode, decode_json, encode_json
from ingest.contract.identity import is_replay
from ingest.contract.records import Event, Result
from ingest.contract.topics import EVENTS, RESULTS, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from stream.analyse.analyser import Sighting
from stream.analyse.analysers import Analysers, RuleSet
from stream.analyse.tracking.tracker import ByteTracker
from stream.exceptions import TooManyEvents
from stream.explain.search import MARGIN_MS
from stream.readback import tail

Progress = Callable[[int, int], None]
"""A callback that gets the number of offsets read so far and the total number of offsets to read."""
MAX_EVENTS = 20_000
"""Maximum number of events that the rules may emit in one partition. Each event takes about 2 kB of memory."""
MAX_EXAMPLES = 100
"""Maximum number of gained and of lost events of one rule that the report names. The numbers of gained and lost
events in the report are not limited."""
_REPORT_EVERY = 500


@dataclass(slots=True)
class RuleDifference:
    """Numbers of events of one rule.

    ``equal`` counts the events that both the tested rules and the log have. ``moved`` counts the events that both
    have with the same id, but in different frames, for example because a line was moved.
    """

    equal: int = 0
    moved: int = 0
    gained: int = 0
    lost: int = 0
    gained_events: list[Event] = field(default_factory=list)
    """The first gained events, which only the tested rules emit."""
    lost_events: list[Event] = field(default_factory=list)
    """The first lost events, which only the log has."""


@dataclass(slots=True)
class TrialReport:
    """The differences by rule, and the numbers of results that the rules ran over or could not process."""

    rules: defaultdict[str, RuleDifference] = field(default_factory=lambda: defaultdict(RuleDifference))
    results: int = 0
    failed: int = 0


async def try_rules(
    log: Log,
    rules: RuleSet,
    cameras: Collection[str],
    since_ms: int,
    until_ms: int,
    on_progress: Progress = lambda *_: None,
) -> TrialReport:
    """Run the rules over results of the cameras, written within a period, and compare the events.

    The period is by the broker's clock, from ``since_ms`` up to but not including ``until_ms``. Results before the
    period build up the state of the rules, as after a restart of an analyse worker. Nothing is written to the log.

    Raise TooManyEvents if the rules emit more than ``MAX_EVENTS`` events in a partition. Raise LogUnavailable.
    """
    report, parts = TrialReport(), {}
    for partition in await log.ends(RESULTS):
        tp = TopicPartition(RESULTS, partition)
        parts[tp] = await log.offset_at(tp, since_ms), await log.offset_at(tp, until_ms)
    total, done = sum(max(0, stop - start) for start, stop in parts.values()), 0
    for tp, (start, stop) in parts.items():
        trial = _Trial(log, rules, cameras, report)
        await trial.run(tp, start, stop, lambda read, done=done: on_progress(done + read, total))  # type: ignore[misc]
        await trial.compare(since_ms)
        done += max(0, stop - start)
    on_progress(total, total)
    return report


class _Trial:
    """The run of tested rules over the stored results of one partition: the frames of the period, and the events of
    the rules."""

    def __init__(self, log: Log, rules: RuleSet, cameras: Collection[str], report: TrialReport) -> None:
        self._log, self._rules, self._cameras, self._report = log, rules, cameras, report
        self._spans: dict[tuple[str, str, int], tuple[int, int]] = {}
        """First and last sequence number of the period's results, by camera, lane and epoch (capture run)."""
        self._events = _OpenEvents()

    async def run(self, tp: TopicPartition, start: int, stop: int, on_progress: Callable[[int], None]) -> None:
        """Run the rules over the results from the offset ``start`` up to but not including ``stop``."""
        if start >= stop:
            return
        analysers = Analysers(lambda: self._rules, ByteTracker)
        analysers.remember(await tail(self._log, tp, start, self._rules.history_point, self._rules.longest_s), {})
        async with aclosing(self._log.read(*tp, start, stop)) as records:
            async for record in records:
                self._take(analysers, record)
                if (record.offset - start) % _REPORT_EVERY == 0:
                    on_progress(record.offset - start)

    async def compare(self, since_ms: int) -> None:
        """Compare the events with the emitted events of the same frames."""
        count = len(await self._log.ends(EVENTS))
        seen: set[str] = set()
        names = {camera for camera, _, _ in self._spans}
        places = names | {self._rules.cameras[name].full_place for name in names if name in self._rules.cameras}
        for partition in sorted({partition_for(place, count) for place in places}):
            tp = TopicPartition(EVENTS, partition)
            end = (await self._log.ends(EVENTS))[partition]
            start = min(await self._log.offset_at(tp, since_ms - MARGIN_MS), end)
            async with aclosing(self._log.read(*tp, start, end)) as records:
                async for record in records:
                    event = self._emitted(record)
                    if event and event.id not in seen:
                        seen.add(event.id)
                        self._match(event)
        for event in self._events:
            difference = self._report.rules[event.data.rule]
            difference.gained += 1
            if len(difference.gained_events) < MAX_EXAMPLES:
                difference.gained_events.append(event)

    def _take(self, analysers: Analysers, record: LogRecord) -> None:
        try:
            result = decode(Result, record.value)
        except CodecError:
            self._report.failed += 1
            return
        if result.camera not in self._cameras or is_replay(result.lane):
            return
        self._report.results += 1
        key = result.camera, result.lane, result.epoch
        first, last = self._spans.get(key, (result.seq, result.seq))
        self._spans[key] = min(first, result.seq), max(last, result.seq)
        try:
            events = analysers.step(result)
            analysers.take_measures()  # not compared, but measures may lower the score at which a track begins
            analysers.take_signals()  # not compared, because only `sense` decides about their candidates
        except MemoryError:
            raise
        except Exception:  # the stage analyse parks such a result as a dead letter
            self._report.failed += 1
            return
        for event in events:
            self._events.add(event)

    def _emitted(self, record: LogRecord) -> Event | None:
        """Return an emitted event of one of the period's frames."""
        frames, lane = h.frames_of(record.headers), h.lane_of(record.headers, record.topic)
        for frame in frames:
            first, last = self._spans.get((frame.camera, lane, frame.epoch), (1, 0))
            if first <= frame.seq <= last:
                try:
                    return decode_json(Event, record.value, MAX_JSON_BYTES)
                except CodecError:
                    return None
        return None

    def _match(self, event: Event) -> None:
        if event.data.sensor is not None:  # the event of a join, which `sense` decides
            return
        difference = self._report.rules[event.data.rule]
        own = self._events.take(event)
        if own:
            same = (own.data.epoch, own.data.seq) == (event.data.epoch, event.data.seq)
            difference.equal, difference.moved = difference.equal + same, difference.moved + (not same)
            return
        difference.lost += 1
        if len(difference.lost_events) < MAX_EXAMPLES:
            difference.lost_events.append(event)


_Key = tuple[str, str, int, int, Sighting]


class _OpenEvents:
    """The events of the tested rules for which no emitted event is found yet, as JSON.

    Two events correspond if they have the same id, or the same frame, rule, label and box. If the trial of a rule
    starts in the middle of a track, the track gets a different name than in the live run, and its events get
    different ids.
    """

    def __init__(self) -> None:
        self._events: dict[str, bytes] = {}
        self._ids: dict[_Key, str] = {}

    def __iter__(self) -> Iterator[Event]:
        return (decode_json(Event, value, MAX_JSON_BYTES) for value in self._events.values())

    def add(self, event: Event) -> None:
        """Add an event of the tested rules. Raise TooManyEvents."""
        self._events[event.id] = encode_json(event)
        self._ids[_key(event)] = event.id
        if len(self._events) > MAX_EVENTS:
            raise TooManyEvents(event.data.rule, MAX_EVENTS)

    def take(self, event: Event) -> Event | None:
        """Remove and return the event that corresponds to an emitted event."""
        found = event.id if event.id in self._events else self._ids.get(_key(event), "")
        value = self._events.pop(found, None)
        return decode_json(Event, value, MAX_JSON_BYTES) if value else None


def _key(event: Event) -> _Key:
    data = event.data
    return data.camera or "", data.lane, data.epoch, data.seq, Sighting.of(data.rule, data.label, data.overlay.box)
