"""Events that are already written, to be recognised after a restart. Pure.

A track that is older than the past that a new owner reads back has another name there, and its events would have
other ids. But an event has the frame and the box of its track, which identify it under any name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from ingest.contract.codec import decode_json
from ingest.contract.records import Box, Event
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord

_DIGITS = 2
"""Decimals of a pixel that are compared: scaling a picture and scaling it back rounds the others."""


class Sighting(NamedTuple):
    """One track in one frame, as a rule sees it. Without a box, the rule's event is of no track in particular."""

    rule: str
    label: str = ""
    box: tuple[float, ...] = ()

    @classmethod
    def of(cls, rule: str, label: str, box: Box | None) -> Sighting:
        """Return the sighting of a box, in pixels of its frame."""
        return cls(rule, label, tuple(round(edge, _DIGITS) for edge in box)) if box else cls(rule)


ReportedEvents = dict[tuple[int, int], set[Sighting]]
"""Sightings of one camera and lane that have an event, by (epoch, seq)."""


def reported_in(events: Iterable[LogRecord]) -> dict[tuple[str, str], ReportedEvents]:
    """Return the reported events by (camera, lane). Unreadable events and those of sensors are left out."""
    reported: defaultdict[tuple[str, str], ReportedEvents] = defaultdict(lambda: defaultdict(set))
    for record in events:
        try:
            data = decode_json(Event, record.value).data
        except CodecError:
            continue
        if data.camera:
            sighting = Sighting.of(data.rule, data.label, data.overlay.box)
            reported[data.camera, data.lane][data.epoch, data.seq].add(sighting)
    return reported
