"""Group events into incidents. Pure.

The incidents are a function of the events in the order of their partition. The times at which ``ends_due`` is called
decide only when the end of an incident is reported, not which events an incident has.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from ingest.contract.records import Event, Incident
from ingest.contract.records.event import MAX_GAP_S, SEVERITIES, Reason
from ingest.contract.records.incident import MAX_NAMES
from stream.events import event_id

KNOWN_EVENTS = 10_000
"""Maximum number of remembered events. An event that is written twice counts once, unless ``MAX_GAP_S`` or more than
this number of events lie in between."""
MAX_LENGTH_S = 86_400.0
"""Maximum time in seconds between the first and the last event of an incident. If events at a place never cease, a
new incident begins each day, so that people notice it again."""


class CauseKey(NamedTuple):
    """Place, type and lane, which all events of an incident have in common."""

    place: str
    type: str
    lane: str


class IncidentGrouper:
    """The incidents of one partition of events.

    An event joins the latest incident of its place, type and lane if it was captured at most ``gap_s`` after the
    incident's latest event, and otherwise begins a new incident. ``gap_s`` is the largest ``incident_gap_s`` of the
    incident's events. An event that was captured before the first event of an incident but arrives later also joins
    this incident.

    Times named ``appended_ns`` are by the broker's clock, in Unix ns, and ``now_s`` is the monotonic clock in
    seconds.
    """

    def __init__(self) -> None:
        self._latest: OrderedDict[CauseKey, Incident] = OrderedDict()
        """The latest incident of each key, in order of their latest events."""
        self._of_event: OrderedDict[str, Incident] = OrderedDict()
        """For each event id, the incident as it was just after the event, in order of the events."""
        self._end_s: dict[CauseKey, float] = {}
        """Time on the monotonic clock at which each open incident ends."""

    def restore(self, records: Iterable[Incident], now_s: float) -> None:
        """Continue with the incidents of an earlier owner of the partition.

        ``records`` are the records that the earlier owner wrote, in the order of the log. The records must cover the
        last ``MAX_GAP_S`` before the first event that follows, by the broker's clock.
        """
        seen: set[tuple[str, tuple[int, bool], int]] = set()
        for record in records:
            version = record.id, record.version, record.appended_ns
            if version in seen:
                continue  # written again by an owner that had lost the partition
            seen.add(version)
            if record.ended:
                self._latest[_key(record)] = record
            else:
                self._use(_key(record), record)
        for key, incident in self._latest.items():
            if not incident.ended:
                self._end_s[key] = now_s + incident.gap_s

    def incident_of(self, event: str) -> Incident | None:
        """Return the state of an event's incident just after the event; None for an event that is not grouped."""
        return self._of_event.get(event)

    def add(self, event: Event, appended_ns: int, now_s: float) -> list[Incident]:
        """Group an event, and return the new records, which are in order.

        The records are the end of the previous incident, the incident's state after this event, and the ends of other
        incidents, as far as they apply. For an event that was grouped before, return only ends of other incidents.
        """
        _forget_before(self._of_event, appended_ns - _ns(MAX_GAP_S))
        if event.id in self._of_event:  # the ends may be missing if the earlier owner was killed
            return self._ends_before(appended_ns)
        key = CauseKey(event.place, event.type, event.data.lane)
        before = self._latest.get(key)
        at_ns = min(event.data.captured_ns, appended_ns)  # a fast clock of a camera must not keep an incident open
        records: list[Incident] = []
        if before and _joins(before, event, at_ns, appended_ns):
            incident = _joined(before, event, at_ns, appended_ns)
        else:
            if before and not before.ended:
                records.append(_ended(before))
            incident = _begun(key, event, at_ns, appended_ns)
        self._use(key, incident)
        self._end_s[key] = now_s + incident.gap_s
        records += [incident, *self._ends_before(appended_ns)]
        _forget_before(self._latest, appended_ns - _ns(MAX_GAP_S))
        return records

    @property
    def deadline_s(self) -> float | None:
        """Time of the next call of ``ends_due``; None if no incident is open."""
        return min(self._end_s.values(), default=None)

    def ends_due(self, now_s: float) -> list[Incident]:
        """Return the ends of the incidents that have had no event for ``gap_s`` by the monotonic clock."""
        return [self._end(key) for key, end_s in list(self._end_s.items()) if end_s <= now_s]

    def _ends_before(self, appended_ns: int) -> list[Incident]:
        """Return the ends of the incidents that have had no event for ``gap_s`` by the broker's clock."""
        return [
            self._end(key)
            for key in list(self._end_s)
            if self._latest[key].appended_ns + _ns(self._latest[key].gap_s) < appended_ns
        ]

    def _end(self, key: CauseKey) -> Incident:
        del self._end_s[key]
        self._latest[key] = _ended(self._latest[key])
        return self._latest[key]

    def _use(self, key: CauseKey, incident: Incident) -> None:
        self._latest[key] = incident
        self._latest.move_to_end(key)
        self._of_event[incident.event] = incident
        self._of_event.move_to_end(incident.event)
        if len(self._of_event) > KNOWN_EVENTS:
            self._of_event.popitem(last=False)


K = TypeVar("K")


def _forget_before(incidents: OrderedDict[K, Incident], appended_ns: int) -> None:
    """Drop the incidents whose latest event was appended before a time, which no later event can join."""
    while incidents and next(iter(incidents.values())).appended_ns < appended_ns:
        incidents.popitem(last=False)


def _key(incident: Incident) -> CauseKey:
    return CauseKey(incident.place, incident.type, incident.lane)


def _joins(incident: Incident, event: Event, at_ns: int, appended_ns: int) -> bool:
    """Return whether an event belongs to an incident."""
    gap_s = max(incident.gap_s, event.data.incident_gap_s)
    return (
        at_ns - incident.last_ns <= _ns(gap_s)
        and at_ns - incident.begin_ns <= _ns(MAX_LENGTH_S)
        # older incidents are not read back after a restart
        and appended_ns - incident.appended_ns <= _ns(MAX_GAP_S)
    )


def _begun(key: CauseKey, event: Event, at_ns: int, appended_ns: int) -> Incident:
    data = event.data
    return Incident(
        id=event_id("incident", *key, event.id),
        change="begin",
        type=key.type,
        place=key.place,
        site=data.site,
        lane=data.lane,
        severity=data.severity,
        summary=data.summary,
        cameras=(event.subject,) if data.camera else (),
        sensors=() if data.camera else (event.subject,),
        rules=(data.rule,),
        events=1,
        begin_ns=at_ns,
        last_ns=at_ns,
        gap_s=data.incident_gap_s,
        event=event.id,
        appended_ns=appended_ns,
    )


def _joined(before: Incident, event: Event, at_ns: int, appended_ns: int) -> Incident:
    data = event.data
    worse = SEVERITIES.index(data.severity) > SEVERITIES.index(before.severity)
    cameras = _with(before.cameras, event.subject) if data.camera else before.cameras
    sensors = before.sensors if data.camera else _with(before.sensors, event.subject)
    events = before.events + 1
    reasons: list[Reason] = []
    if worse:
        reasons.append("severity")
    if len(cameras) + len(sensors) > len(before.subjects):
        reasons.append("camera")
    if events >= 10 and str(events).strip("0") == "1":
        reasons.append("events")
    if before.ended:
        reasons.append("reopened")
    return before.model_copy(
        update={
            "change": "update",
            "reasons": tuple(reasons),
            "severity": data.severity if worse else before.severity,
            "summary": data.summary if worse else before.summary,
            "cameras": cameras,
            "sensors": sensors,
            "rules": _with(before.rules, data.rule),
            "events": events,
            "begin_ns": min(before.begin_ns, at_ns),
            "last_ns": max(before.last_ns, at_ns),
            "gap_s": max(before.gap_s, data.incident_gap_s),
            "event": event.id,
            "appended_ns": max(before.appended_ns, appended_ns),
        }
    )


def _ended(before: Incident) -> Incident:
    return before.model_copy(update={"change": "end", "reasons": ()})


def _with(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return names if name in names or len(names) == MAX_NAMES else (*names, name)


def _ns(seconds: float) -> int:
    return round(seconds * 1_000_000_000)
