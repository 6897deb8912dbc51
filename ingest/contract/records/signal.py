"""Signals: what a camera or a sensor contributes to a rule that joins both."""

from __future__ import annotations

from typing import ClassVar, NamedTuple, Self

from pydantic import model_validator

from ingest.contract.records.base import Count, Many, Name, Record
from ingest.contract.records.event import Event
from ingest.contract.records.frame import Lane


class Change(NamedTuple):
    """From the Unix time ``at_ns`` on, the readings of a sensor meet a rule's condition, or do not meet it."""

    at_ns: Count
    holds: bool


class JoinCandidate(Record):
    """An event that a rule emits if its sensor's condition holds, too.

    ``since_ns`` is the capture time since which the camera's own condition has held.
    """

    KIND: ClassVar[str] = "candidate"

    since_ns: Count
    event: Event


class JoinSignal(Record):
    """What a rule has seen in one frame of its camera, or in one record of readings of its sensor.

    No later signal of the same camera or sensor reports anything before the time ``at_ns``. A camera's signal names
    the ``camera`` and may have candidates. A sensor's signal names the ``sensor``, and lists when its readings begin
    or cease to meet the rule's condition. The first change in a sensor's signal has the time of the first reading. A
    sensor's signal without changes says that no reading has come up to ``at_ns``. ``seq`` is the number of the frame,
    or of the last reading.
    """

    KIND: ClassVar[str] = "signal"

    rule: Name
    camera: Name | None = None
    sensor: Name | None = None
    lane: Lane = "live"
    epoch: Count
    seq: Count
    at_ns: Count
    candidates: Many[JoinCandidate] = ()
    changes: Many[Change] = ()

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if (self.camera is None) == (self.sensor is None):
            raise ValueError("expected a signal of a camera or of a sensor")
        return self
