"""The occupancy of the places of one partition of the topic ``measures``: records per minute, and events."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Event, Measure
from ingest.contract.topics import EVENTS, MEASURES, partition_for
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition
from ingest.site import CameraConfig, MeasureConfig
from ingest.site.topic.view import Config
from stream.events import event_id, make_event
from stream.readback import HistoryPoint, tail, written_from, written_since
from stream.sense.occupancy.count import KEPT_NS, DoorMinute, OccupancyCount
from stream.sense.rules.occupancy import OccupancyReporter, OccupancyRule
from stream.written import CLOCKS_MS, written_ids

OCCUPANCY = "occupancy"
"""Type of the measures that this module writes."""


class OccupancyStep:
    """Counts the occupancy of places, minute by minute. ``config`` returns the site's present configuration.

    The state depends on the minutes of the last two days, which a new owner of the partition reads back.
    """

    def __init__(self, config: Callable[[], Config], event_partitions: int) -> None:
        self._in_force, self._event_partitions = config, event_partitions
        self._past: deque[DoorMinute] = deque()
        """The minutes of all doors in the order of the log, from which a changed rule counts again."""
        self._places: dict[str, _CountedPlace] = {}
        self._written: frozenset[str] = frozenset()
        self._use(config())

    @property
    def places(self) -> int:
        """Number of places that are counted."""
        self._follow()
        return len(self._places)

    async def read_back(self, tp: TopicPartition, position: int, log: Log) -> None:
        """Rebuild the state from the measures before ``position``. Raise LogUnavailable."""
        if not self._places:
            return
        past = await tail(log, tp, position, self._history_point, KEPT_NS / 1e9)
        since_ms = await written_from(log, tp, position, ())
        if since_ms is not None:
            names = {one.camera for one in self._config.of(MeasureConfig) if one.name in self._doors}
            full = {found.full_place if (found := self._cameras.get(name)) else name for name in names}
            events = await written_ids(log, full, self._event_partitions, since_ms)
            later = [_decoded(record) for record in await written_since(log, tp, since_ms - CLOCKS_MS)]
            self._written = events | {one.id for one in later if one and one.type == OCCUPANCY}
        await asyncio.to_thread(self._replay, past, tp.partition)

    def _replay(self, past: Sequence[LogRecord], partition: int) -> None:
        for record in past:
            if measure := _decoded(record):
                self.step(measure, partition)

    def step(self, measure: Measure, partition: int) -> list[Outgoing]:
        """Process a record of the topic ``measures``, and return the records that it causes."""
        self._follow()
        places = self._doors.get(measure.name, ())
        if not places or measure.type != "line":
            return []
        minute = DoorMinute.of(measure)
        self._past.append(minute)
        while not minute.is_late and abs(self._past[0].start_ns - minute.start_ns) > KEPT_NS:
            self._past.popleft()  # too old, or from before the camera's clock was set back
        found: list[Outgoing] = []
        for place in places:
            count = place.count.add(minute)
            if count is None:
                continue
            record = _record(place.rule, count, measure)
            if record.id not in self._written:
                key = measure.camera.encode()
                found.append(Outgoing(MEASURES, partition, encode_json(record), key=key))
            event = self._event(place, count, measure)
            if event and event.id not in self._written:
                found.append(self._outgoing(event))
        return found

    def _history_point(self, record: LogRecord) -> HistoryPoint | None:
        measure = _decoded(record)
        if measure is None or measure.type != "line" or measure.name not in self._doors:
            return None
        late = DoorMinute.of(measure).is_late
        # A late minute may be older than the history: it must not end the search for the minutes in time.
        key = f"{measure.name} late" if late else measure.name
        return HistoryPoint(key, 0, measure.start_ns, KEPT_NS / 1e9)

    def _follow(self) -> None:
        config = self._in_force()
        if config is not self._config:
            self._use(config)

    def _use(self, config: Config) -> None:
        """Use another configuration. A changed rule counts again from the minutes in memory, and reports a situation
        that lasts."""
        self._config = config
        self._cameras = {one.name: one for one in config.of(CameraConfig)}
        before, self._places = self._places, {}
        self._doors: defaultdict[str, list[_CountedPlace]] = defaultdict(list)
        for rule in config.of(OccupancyRule):
            known = before.get(rule.name)
            place = known if known and known.rule.same_as(rule) else _CountedPlace(rule, self._past)
            self._places[rule.name] = place
            for door in rule.doors:
                self._doors[door].append(place)

    def _event(self, place: _CountedPlace, count: OccupancyCount, measure: Measure) -> Event | None:
        found = place.reporter.step(count)
        if found is None:
            return None
        camera = self._cameras.get(measure.camera)
        return make_event(
            place.rule,
            found,
            measure.camera,
            (count.start_ns, count.cause),
            count.start_ns,
            site=measure.site,
            camera=measure.camera,
            place=camera.place if camera else None,
        )

    def _outgoing(self, event: Event) -> Outgoing:
        partition = partition_for(event.place, self._event_partitions)
        return Outgoing(EVENTS, partition, encode_json(event), key=event.subject.encode(), headers=h.CLOUD_EVENT)


class _CountedPlace:
    """The count of one place, and the state of its rule."""

    def __init__(self, rule: OccupancyRule, past: Sequence[DoorMinute]) -> None:
        self.rule, self.count, self.reporter = rule, rule.counter(), OccupancyReporter(rule)
        for minute in past:
            if count := self.count.add(minute):
                self.reporter.step(count)
        self.reporter.report_again()


def _record(rule: OccupancyRule, count: OccupancyCount, measure: Measure) -> Measure:
    return Measure(
        id=event_id("occupancy", rule.name, count.cause),
        name=rule.name,
        type=OCCUPANCY,
        site=measure.site,
        camera=measure.camera,
        pipeline=measure.pipeline,
        start_ns=count.start_ns,
        revision=count.revision,
        corrected=count.revision > 0,
        observed=count.observed,
        values={
            "inside": count.inside,
            "entries": count.entries,
            "exits": count.exits,
            "unmatched_exits": count.unmatched,
        },
    )


def _decoded(record: LogRecord) -> Measure | None:
    try:
        return decode_json(Measure, record.value)
    except CodecError:
        return None
