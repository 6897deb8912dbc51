"""The views of incidents and of the actions on them."""

from __future__ import annotations

from typing import ClassVar

from console.live.view import TopicView
from ingest.contract.codec import MAX_JSON_BYTES, decode_json
from ingest.contract.records import Incident, IncidentAction
from ingest.contract.topics import INCIDENT_ACTIONS, INCIDENTS
from ingest.kafka.log import LogRecord
from stream.incidents.view import IncidentView


class LiveIncidentView(TopicView):
    """The newest incidents."""

    topic: ClassVar[str] = INCIDENTS
    backlog: ClassVar[int] = 10_000

    def __init__(self, incidents: IncidentView) -> None:
        self._incidents = incidents

    def apply(self, record: LogRecord) -> None:
        """Add a record of an incident."""
        self._incidents.incident(decode_json(Incident, record.value, MAX_JSON_BYTES))


class LiveActionView(TopicView):
    """The newest actions of people on incidents."""

    topic: ClassVar[str] = INCIDENT_ACTIONS
    backlog: ClassVar[int] = 10_000

    def __init__(self, incidents: IncidentView) -> None:
        self._incidents = incidents

    def apply(self, record: LogRecord) -> None:
        """Add an action."""
        self._incidents.action(decode_json(IncidentAction, record.value, MAX_JSON_BYTES))
