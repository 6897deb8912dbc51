"""What has been told already, as the events themselves have it. Pure.

A track that is older than what a new owner reads back has another name there, and its events would have other ids.
But an event says where its track was and in which frame: by that it is known again under any name.
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
"""Of a pixel: boxes are the same but for the rounding when a picture is scaled and scaled back."""


class Sighting(NamedTuple):
    """One track in one frame, as a rule sees it. Made by ``of``."""

    rule: str
    label: str
    box: tuple[float, ...]

    @classmethod
    def of(cls, rule: str, label: str, box: Box) -> Sighting:
        """Return the sighting of a box in pixels of its frame."""
        return cls(rule, label, tuple(round(edge, _DIGITS) for edge in box))


Told = dict[tuple[int, int], set[Sighting]]
"""What has been told of one camera on one lane, by (epoch, seq)."""


def told_by(events: Iterable[LogRecord]) -> dict[tuple[str, str], Told]:
    """Return what events tell, by (camera, lane). Those that cannot be read, or are no camera's, tell nothing."""
    told: defaultdict[tuple[str, str], Told] = defaultdict(lambda: defaultdict(set))
    for record in events:
        try:
            data = decode_json(Event, record.value).data
        except CodecError:
            continue
        if data.camera and data.overlay.box:
            sighting = Sighting.of(data.rule, data.label, data.overlay.box)
            told[data.camera, data.lane][data.epoch, data.seq].add(sighting)
    return told
