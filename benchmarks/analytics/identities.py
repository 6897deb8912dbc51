"""Identity switches: tracks of a tracker against the objects of a scene's ground truth. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ingest.contract.records import Box

_SAME = 0.3
"""Minimum intersection over union of a track's box and a true object's box that are one object. Boxes of moving
regions include shadows and rain, and are larger than the objects."""


@dataclass
class IdentityTally:
    """Counts over the frames of one scene, as in the CLEAR MOT metrics (Bernardin and Stiefelhagen, 2008).

    ``switches`` counts how often the track of an object is replaced by another track.
    """

    objects: set[int] = field(default_factory=set)
    seen: int = 0
    """Number of pairs of a frame and an object of the ground truth."""
    tracked: int = 0
    """Number of pairs of a frame and an object in which a track covers the object."""
    switches: int = 0
    present: dict[int, str] = field(default_factory=dict)
    """The track of each object that a track covers in the last frame."""
    _tracks: dict[int, str] = field(default_factory=dict)

    def add(self, truth: Iterable[tuple[int, Box]], tracks: Iterable[tuple[str, Box]]) -> None:
        """Compare the tracks of one frame with the objects of the ground truth. Match each track and each object at
        most once."""
        left, found = dict(tracks), dict(truth)
        self.objects |= found.keys()
        self.seen += len(found)
        self.present = {}
        pairs = ((box.iou(other), number, name) for number, box in found.items() for name, other in left.items())
        for overlap, number, name in sorted(pairs, reverse=True):
            if overlap < _SAME or number not in found or name not in left:
                continue
            del found[number], left[name]
            self.tracked += 1
            self.switches += self._tracks.get(number, name) != name
            self._tracks[number] = self.present[number] = name
