"""The events that an earlier owner of a partition has written, so that a restart writes none of them twice. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from ingest.contract.codec import decode_json
from ingest.contract.records import Box, Event
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from stream.analyse.geometry import Scale
from stream.analyse.rule import WHOLE_SCENE, Scene

_DIGITS = 2
"""Number of decimal places to which the coordinates of boxes are compared. Further decimal places change when a box
is converted to pixels of the first picture and back."""


class Sighting(NamedTuple):
    """The rule, label and box of a written event.

    ``box`` is empty for an event that concerns no single track. After a restart, the frame and the sighting identify
    a written event. An event's id depends on the track's name, and a track whose beginning is not read back after a
    restart gets another name. The frame and the box of an event do not depend on the track's name.
    """

    rule: str
    label: str = ""
    box: tuple[float, ...] = ()

    @classmethod
    def of(cls, rule: str, label: str, box: Box | None) -> Sighting:
        """Return the sighting of an event; ``box`` is in pixels of the event's frame."""
        return cls(rule, label, tuple(round(edge, _DIGITS) for edge in box)) if box else cls(rule)


ReportedEvents = dict[tuple[int, int], set[Sighting]]
"""Sightings (rule, label and box) of the written events of one camera and lane, by the frame's ``(epoch, seq)``."""


def reported_in(events: Iterable[LogRecord]) -> dict[tuple[str, str], ReportedEvents]:
    """Return the sightings of written events, by ``(camera, lane)`` and the frame's ``(epoch, seq)``. Leave out
    unreadable events and events of sensors."""
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


def subjects(rule: str, scene: Scene, scale: Scale, sightings: set[Sighting]) -> set[str]:
    """Return the subjects (track names or ``WHOLE_SCENE``) for which an event of this rule and frame is already
    written."""
    boxes = ((track.name, Sighting.of(rule, track.label, scale.back(track.box))) for track in scene.tracks)
    found = {name for name, sighting in boxes if sighting in sightings}
    return found | {WHOLE_SCENE} if Sighting(rule) in sightings else found
