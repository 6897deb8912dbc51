"""Compare the events of tested rules or models with the events that were emitted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from ingest.contract import headers as h
from ingest.contract.codec import MAX_JSON_BYTES, decode_json, encode_json
from ingest.contract.records import Event, Result
from ingest.contract.topics import EVENTS, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.site import CameraConfig
from stream.analyse.reported import Sighting
from stream.exceptions import TooManyEvents
from stream.explain.search import written_from

MAX_EVENTS = 20_000
"""Maximum number of events that tested rules may emit in one partition. Each event takes about 2 kB of memory."""
MAX_EXAMPLES = 100
"""Maximum number of gained events, and of lost events, that the report names for one rule. The numbers of gained and
lost events in the report are not limited."""


@dataclass(slots=True)
class RuleDifference:
    """Numbers of events of one rule.

    ``equal`` counts the events that both the tested rules and the log have. ``moved`` counts the events with the same
    id that the tested rules and the log have in different frames, for example because a line was moved.
    """

    equal: int = 0
    moved: int = 0
    gained: int = 0
    lost: int = 0
    gained_events: list[Event] = field(default_factory=list)
    """The first gained events, which only the tested rules emit."""
    lost_events: list[Event] = field(default_factory=list)
    """The first lost events, which only the log has."""

    def merge(self, other: RuleDifference) -> None:
        """Add the numbers of events of the same rule in other partitions."""
        self.equal, self.moved = self.equal + other.equal, self.moved + other.moved
        self.gained, self.lost = self.gained + other.gained, self.lost + other.lost
        self.gained_events = [*self.gained_events, *other.gained_events][:MAX_EXAMPLES]
        self.lost_events = [*self.lost_events, *other.lost_events][:MAX_EXAMPLES]


def rules_json(rules: Mapping[str, RuleDifference]) -> list[dict[str, Any]]:
    """Return the differences of each rule as values for JSON, with the first gained and lost events."""
    return [
        {
            "rule": rule,
            "equal": one.equal,
            "moved": one.moved,
            "gained": one.gained,
            "lost": one.lost,
            "gained_events": [_event(event) for event in one.gained_events],
            "lost_events": [_event(event) for event in one.lost_events],
        }
        for rule, one in sorted(rules.items())
    ]


class EventComparison:
    """The events of tested rules in one partition, and the frames whose events are compared.

    ``rules`` gets the numbers of equal, moved, gained and lost events of each rule. Emitted events of the rules in
    ``ignored`` are not compared.
    """

    def __init__(self, rules: defaultdict[str, RuleDifference], ignored: frozenset[str] = frozenset()) -> None:
        self._rules, self._ignored = rules, ignored
        self._spans: dict[tuple[str, str, int], tuple[int, int]] = {}
        """First and last sequence number of the compared results, by camera, lane and epoch (capture run)."""
        self._events = _OpenEvents()

    def note(self, result: Result) -> None:
        """Note that the events of a result's frame are compared."""
        key = result.camera, result.lane, result.epoch
        first, last = self._spans.get(key, (result.seq, result.seq))
        self._spans[key] = min(first, result.seq), max(last, result.seq)

    def add(self, event: Event) -> None:
        """Add an event of the tested rules. Raise TooManyEvents."""
        self._events.add(event)

    async def compare(self, log: Log, cameras: Mapping[str, CameraConfig], since_ms: int) -> None:
        """Compare the added events with the emitted events of the same frames, which were written after ``since_ms``.

        Raise LogUnavailable.
        """
        count = len(await log.ends(EVENTS))
        seen: set[str] = set()
        names = {camera for camera, _, _ in self._spans}
        places = names | {cameras[name].full_place for name in names if name in cameras}
        for partition in sorted({partition_for(place, count) for place in places}):
            tp = TopicPartition(EVENTS, partition)
            async with aclosing(written_from(log, tp, since_ms, most=None)) as records:
                async for record in records:
                    event = self._emitted(record)
                    if event and event.id not in seen and event.data.rule not in self._ignored:
                        seen.add(event.id)
                        self._match(event)
        for event in self._events:
            difference = self._rules[event.data.rule]
            difference.gained += 1
            if len(difference.gained_events) < MAX_EXAMPLES:
                difference.gained_events.append(event)

    def _emitted(self, record: LogRecord) -> Event | None:
        """Return the event in a record if it belongs to a compared frame, else None."""
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
        difference = self._rules[event.data.rule]
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

    Two events correspond if they have the same id, or the same frame, rule, label and box. If the trial starts in
    the middle of a track, the track gets a different name than in the live run, and its events get different ids.
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
        """Remove and return the tested rules' event that corresponds to an emitted event."""
        found = event.id if event.id in self._events else self._ids.get(_key(event), "")
        value = self._events.pop(found, None)
        return decode_json(Event, value, MAX_JSON_BYTES) if value else None


def _key(event: Event) -> _Key:
    data = event.data
    return data.camera or "", data.lane, data.epoch, data.seq, Sighting.of(data.rule, data.label, data.overlay.box)


def _event(event: Event) -> dict[str, Any]:
    data = event.data
    frame = f"{data.camera}/{data.epoch}/{data.seq}"
    return {"id": event.id, "time": event.time, "frame": frame, "lane": data.lane, "summary": data.summary}
