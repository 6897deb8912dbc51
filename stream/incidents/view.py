"""The incidents of the last days and the actions on them, as a view in memory. Pure."""

from __future__ import annotations

import bisect
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ingest.contract.records import Incident, IncidentAction
from ingest.contract.records.event import SEVERITIES, Severity
from stream.events import rfc3339
from stream.exceptions import IncidentNotFound

MAX_INCIDENTS = 10_000
"""Maximum number of incidents in a view, which take 60 MB with three changes each. If a view has more incidents, it
drops the incident that has not changed for the longest time."""
MAX_HISTORY = 30
"""Maximum number of changes of one incident that a view keeps. If an incident has more changes, its oldest changes
are dropped."""
MAX_ACTIONS = 100
"""Maximum number of actions on one incident that a view keeps. The oldest actions are dropped."""


@dataclass(slots=True)
class IncidentState:
    """An incident with its history and the actions on it.

    ``history`` has the records that begin or end the incident, or that update it with a reason, in order. ``actions``
    are in order of time.
    """

    incident: Incident
    history: deque[Incident] = field(default_factory=lambda: deque(maxlen=MAX_HISTORY))
    actions: deque[IncidentAction] = field(default_factory=lambda: deque(maxlen=MAX_ACTIONS))

    @property
    def acknowledgement(self) -> IncidentAction | None:
        """The latest acknowledgement; None if nobody has acknowledged the incident."""
        return next((one for one in reversed(self.actions) if one.action == "acknowledge"), None)

    @property
    def assignee(self) -> str:
        """The person to whom the incident is assigned; empty if it is not assigned."""
        return next((one.assignee for one in reversed(self.actions) if one.action == "assign"), "")

    def summary(self) -> dict[str, Any]:
        """Return the incident as JSON values, without history and actions."""
        incident, acknowledged = self.incident, self.acknowledgement
        return {
            "id": incident.id,
            "state": "ended" if incident.ended else "open",
            "severity": incident.severity,
            "type": incident.type,
            "place": incident.place,
            "site": incident.site,
            "lane": incident.lane,
            "summary": incident.summary,
            "cameras": list(incident.cameras),
            "sensors": list(incident.sensors),
            "rules": list(incident.rules),
            "events": incident.events,
            "began": rfc3339(incident.begin_ns),
            "last": rfc3339(incident.last_ns),
            "acknowledged_by": acknowledged.by if acknowledged else "",
            "assignee": self.assignee,
        }

    def details(self) -> dict[str, Any]:
        """Return the incident as JSON values, with history and actions."""
        changes = [
            {
                "change": one.change,
                "reasons": list(one.reasons),
                "at": rfc3339(one.last_ns),
                "severity": one.severity,
                "events": one.events,
                "cameras": list(one.cameras),
                "sensors": list(one.sensors),
                "event": one.event,
            }
            for one in self.history
        ]
        actions = [
            {
                "id": one.id,
                "action": one.action,
                "by": one.by,
                "at": rfc3339(one.at_ns),
                "assignee": one.assignee,
                "comment": one.comment,
            }
            for one in self.actions
        ]
        return self.summary() | {"history": changes, "actions": actions}


class IncidentView:
    """A view of the incidents, updated with the records of the topics ``incidents`` and ``incidents.actions``.

    Records may come in any order, and more than once. The view keeps at most ``limit`` incidents, and the actions on
    up to ``limit`` incidents of which no record has come yet.
    """

    def __init__(self, limit: int = MAX_INCIDENTS) -> None:
        self._limit = limit
        self._states: dict[str, IncidentState] = {}
        self._order: list[tuple[int, str]] = []
        """Time of the latest news in Unix ns, and id, of each incident, the incident with the oldest news first. The
        time is when the broker appended the news, because partitions are read one after the other and not in the
        order of time."""
        self._early: OrderedDict[str, deque[IncidentAction]] = OrderedDict()
        """Actions on incidents of which no record has come yet."""
        self.unreadable = 0
        """Number of records that could not be decoded."""

    def __len__(self) -> int:
        return len(self._states)

    def incident(self, record: Incident) -> None:
        """Take a record of the topic ``incidents``. A record of an older or the same version changes nothing."""
        state = self._states.get(record.id)
        if state is None:
            state = self._states[record.id] = IncidentState(record)
            state.actions.extend(self._early.pop(record.id, ()))
        elif record.version <= state.incident.version:
            return
        else:
            del self._order[bisect.bisect_left(self._order, (state.incident.appended_ns, record.id))]
        state.incident = record
        if record.change != "update" or record.reasons:
            state.history.append(record)
        bisect.insort(self._order, (record.appended_ns, record.id))
        if len(self._order) > self._limit:
            del self._states[self._order.pop(0)[1]]

    def action(self, record: IncidentAction) -> None:
        """Take a record of the topic ``incidents.actions``. An action that the view has already changes nothing."""
        state = self._states.get(record.incident)
        if state is None:
            actions = self._early.setdefault(record.incident, deque(maxlen=MAX_ACTIONS))
            if len(self._early) > self._limit:
                self._early.popitem(last=False)
        else:
            actions = state.actions
        if all(one.id != record.id for one in actions):
            actions.append(record)
            ordered = sorted(actions, key=lambda one: (one.at_ns, one.id))
            actions.clear()
            actions.extend(ordered)

    def find(self, wanted: str) -> IncidentState:
        """Return the incident whose id is ``wanted`` or begins with it. Raise IncidentNotFound."""
        if wanted in self._states:
            return self._states[wanted]
        found = [one for one in self._states if wanted and one.startswith(wanted)]
        if len(found) == 1:
            return self._states[found[0]]
        count = f"{len(found)} incidents have ids that begin with" if found else "no incident has the id"
        raise IncidentNotFound(f"{count} {wanted}: expected an id, or its first characters, of `incidents list`")

    def select(
        self,
        *,
        open_only: bool = False,
        unacknowledged: bool = False,
        places: Iterable[str] = (),
        severity: Severity = "info",
        since_ns: int = 0,
    ) -> Iterator[IncidentState]:
        """Yield the incidents that meet all conditions, the one that changed last first.

        ``places`` are full names of places, or names of cameras and sensors; all by default. ``severity`` is the
        lowest severity. ``since_ns`` is the earliest capture time of the latest event, in Unix ns.
        """
        wanted = set(places)
        for _, id_ in reversed(self._order.copy()):
            state = self._states[id_]
            incident = state.incident
            if (
                not (open_only and incident.ended)
                and not (unacknowledged and state.acknowledgement)
                and (not wanted or not wanted.isdisjoint((incident.place, *incident.subjects)))
                and SEVERITIES.index(incident.severity) >= SEVERITIES.index(severity)
                and incident.last_ns >= since_ns
            ):
                yield state
