"""Incidents, and the actions of people on them: acknowledge, assign, comment."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.records.base import Count, Id, Many, Name, Record
from ingest.contract.records.event import Change, GapSeconds, Reasons, Severity, Text
from ingest.contract.records.frame import Lane

MAX_NAMES = 100
"""Maximum number of cameras, of sensors and of rules that an incident names."""
Names = Annotated[Many[Name], Field(max_length=MAX_NAMES)]
Person = Annotated[str, Field(min_length=1, max_length=200)]


class Incident(Record):
    """The state of an incident after one event, or at its end.

    An incident groups the events of one ``type`` at one ``place``. Each event adds a record with the incident's whole
    state, and the end adds one more. ``event`` is the latest event, and ``appended_ns`` is the time at which the
    broker appended it. ``begin_ns`` and ``last_ns`` are the capture times of the first and the latest event. If an
    event follows the end within ``gap_s`` of capture time, it opens the incident again.
    """

    KIND: ClassVar[str] = "incident"

    id: Id
    change: Change
    reasons: Reasons = ()
    type: Text
    place: str
    site: str = ""
    lane: Lane = "live"
    severity: Severity
    summary: Text
    """Summary of the first event that has the incident's severity."""
    cameras: Names = ()
    """Cameras in the order in which they joined."""
    sensors: Names = ()
    rules: Annotated[Names, Field(min_length=1)]
    events: int = Field(ge=1)
    begin_ns: Count
    last_ns: Count
    gap_s: GapSeconds
    event: Id
    appended_ns: Count

    @model_validator(mode="after")
    def _has_a_subject(self) -> Self:
        if not self.subjects:
            raise ValueError("expected a camera or a sensor")
        return self

    @property
    def subjects(self) -> tuple[str, ...]:
        """Cameras and sensors of the incident."""
        return (*self.cameras, *self.sensors)

    @property
    def version(self) -> tuple[int, bool]:
        """Order of the records of one incident: a record with a higher version replaces one with a lower version."""
        return self.events, self.change == "end"

    @property
    def ended(self) -> bool:
        """Whether the incident has ended."""
        return self.change == "end"


class IncidentAction(Record):
    """An action of a person on an incident.

    An acknowledgement may have a comment, an assignment has an ``assignee``, and a comment has a text. Only the
    latest acknowledgement and the latest assignment are in force.
    """

    KIND: ClassVar[str] = "incident-action"

    id: Id
    incident: Id
    action: Literal["acknowledge", "assign", "comment"]
    by: Person
    at_ns: Count
    assignee: Annotated[str, Field(max_length=200)] = ""
    comment: Text = ""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.action == "assign") != bool(self.assignee):
            raise ValueError("expected assignee in an assignment, and in no other action")
        if self.action == "comment" and not self.comment.strip():
            raise ValueError("expected a text in a comment")
        return self
