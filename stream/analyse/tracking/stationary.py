"""Stationary tracks: tracks of objects that stand still, in regions that no model examines. Pure.

A pipeline that examines only moving regions loses an object that has stopped. The agent's background model absorbs
the stopped object, and the agent reports no motion at the object's position. As long as nothing moves at the position
of a stopped object, the object is assumed to be present. From time to time the agent lists the stationary boxes of a
frame, and the model examines these boxes. If the model detects an object in a listed box, the object's track
continues. If the model repeatedly detects nothing at the object's position, the track ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ingest.contract.records import MAX_RESTING, Box, Detection, Result
from stream.analyse.geometry import Scale
from stream.analyse.tracking.tracker import LOST_S, HeldTrack, Track

REST_S = 2.0
"""Time in seconds after which a track that has not changed its position is stationary. The agent's background model
takes about 4 s to absorb an object. An object that is still moving when it goes out of sight was never stationary."""
UNCONFIRMED_S = 120.0
"""Time after which a stationary track is dropped if the agent has not listed the track's object and the model has not
detected the object. 120 s are four times the longest usual keep-alive interval."""
COVERED_S = 10.0
"""Maximum time in s for which a passing object may cover a stationary object. If motion covers a stationary object's
position for more than ``COVERED_S``, the object counts as gone."""
_SAME = 0.6
"""Minimum overlap at which two boxes show one unmoved object, as a share of the smaller box's area. The boxes of an
unmoved object differ while the background model absorbs the object part by part."""
_WHOLE = 0.7
"""Minimum area of a box that shows the whole object, as a share of the object's area. A box with a smaller area shows
only a part of the object."""
_FULL = 0.95
"""A box becomes the object's new position if the box has at least this share of the area of the object's largest box
so far. Boxes of one fully visible object vary in area by up to 5 %."""
_GROWN = 1.5
"""A box shows a stationary object only if the box's area is at most this multiple of the object's area. A larger box
includes a second object, or shows that the object moves towards the camera."""
_COVERED = 0.5
"""A stationary object counts as covered by a passing object if motion fills at least this share of its box. A waving
arm, or a person who walks past a car, covers a smaller share of the box. A stationary object that leaves causes
motion in its whole box."""
_INSIDE = 0.9
"""A moving region counts as inside a stationary object's box if at least this share of the region's area lies in the
box. If a smaller share of a moving region lies in the box, the stationary object itself may be leaving."""
_OWN = 0.5
"""A stationary box that the agent lists belongs to a tracked object if at least this share of the box lies inside the
object's position. If a smaller share of the listed box lies inside the object's position, the box shows a larger
object in front of the tracked object or beside it."""
_ABSORBED_S = 10.0
"""Time in seconds after which the background model has certainly absorbed an object that stopped. A moving detection
with another label at the position of an absorbed object shows another object."""
_MAX_MISSES = 2
"""Number of misses after which a stationary track ends. A model misses an object if it examines the object's position
and does not detect the object. A single miss may be an error of the model."""
_APART_S = 2.0
"""Minimum time in seconds between two misses of an object for the second miss to count. In two seconds the picture
hardly changes, and a model that missed an object misses the object again."""


class FrameView(NamedTuple):
    """Moving and stationary regions of a frame, in pixels of the epoch's first frame."""

    motion: tuple[Box, ...] | None
    resting: tuple[Box, ...] | None
    shown: tuple[Box, ...]
    """Stationary boxes that the model examined in this frame."""

    @classmethod
    def of(cls, result: Result, scale: Scale) -> FrameView:
        """Return the moving and stationary regions of a result's frame."""
        motion, resting, looked_at = result.motion, result.resting, frozenset(result.looked_at)
        return cls(
            None if motion is None else scale.boxes(motion),
            None if resting is None else scale.boxes(resting),
            scale.boxes(box for box in resting or () if box in looked_at),
        )

    def lists(self, position: Box) -> bool:
        """Return whether the agent listed the object in a position as stationary.

        Ignore listed boxes that lie mostly outside of the position, because such boxes show a larger object.
        """
        own = [box for box in self.resting or () if position.shared(box) >= _OWN * box.area]
        return _share(position, own) >= _COVERED

    def shows(self, position: Box) -> bool:
        """Return whether the model examined a stationary object in a position."""
        return _share(position, self.shown) >= _COVERED

    def is_at_rest(self, box: Box) -> bool:
        """Return whether a detection shows a stationary object, rather than an object that moves in front of a
        stationary object."""
        return bool(self.shown) and self.shows(box) and self.moving(box) < _COVERED

    def moving(self, position: Box) -> float:
        """Return the share of a position in which something moves, 0..1."""
        return _share(position, self.motion or ())

    def crosses_edge(self, position: Box) -> bool:
        """Return whether a moving region is partly inside and partly outside of a position."""
        return any(0.0 < position.shared(box) < _INSIDE * box.area for box in self.motion or ())

    def excludes(self, position: Box) -> bool:
        """Return whether a position is certainly empty: the agent listed all stationary boxes of the frame, and the
        position contains neither a stationary box nor motion."""
        complete = self.resting is not None and len(self.resting) < MAX_RESTING
        return complete and _share(position, self.resting or ()) + self.moving(position) < _COVERED


@dataclass
class _Stop:
    """A track that stays in one position.

    Fields in nanoseconds count camera time (``TrackTime.lived_ns``). Fields in seconds count camera time without the
    gaps in which nothing moved (``TrackTime.advance``).
    """

    track: Track
    first: Box
    """First box of the track in this position."""
    position: Box
    """Last box that shows the whole object."""
    full_px: float
    """Largest area of the object's boxes in this position, in square pixels."""
    since_ns: int
    is_stationary: bool
    """Whether the track was seen in this position for at least ``REST_S``, or whether the agent lists the track's
    object as stationary."""
    is_listed: bool
    """Whether the agent has listed the object as stationary since the object last moved. An object that the agent has
    not listed may have left if the model no longer detects the object."""
    confirmed_ns: int
    at_s: float
    """Time in seconds of the last frame in which the track was detected or was continued without a detection."""
    is_absorbed: bool = False
    """Whether the background model has absorbed the object: there was a frame without any motion in this position."""
    must_be_absorbed: bool = False
    """Whether ``_ABSORBED_S`` have passed since the object stopped."""
    covered_ns: int | None = None
    """Time in ns at which another object began to cover this position; None if no object covers the position."""
    is_certain: bool = True
    """Whether the object is certainly in this position. An object that is covered, or that the model missed, may have
    left."""
    misses: int = 0
    missed_ns: int | None = None


class StationaryTracks:
    """The tracks of one camera, with each track's position and the time at which the track came to that position."""

    def __init__(self) -> None:
        self._stops: dict[str, _Stop] = {}

    def seen(self, track: Track, view: FrameView, at_s: float, at_ns: int) -> bool:
        """Record a track's detection, and return whether the track's object is at rest.

        An object that the agent lists as stationary counts as at rest from its first detection on.
        """
        stop, box, at_rest = self._stops.get(track.name), track.box, view.is_at_rest(track.box)
        if stop is None or not _are_same(stop.first, box, _GROWN):
            self._stops[track.name] = _Stop(track, box, box, box.area, at_ns, at_rest, at_rest, at_ns, at_s)
            return at_rest
        stop.track = track  # a track that was re-identified continues as another object
        if box.area >= _FULL * stop.full_px:
            stop.position, stop.full_px = box, max(stop.full_px, box.area)
        stop.is_stationary |= at_rest or at_ns - stop.since_ns >= REST_S * 1e9
        stop.is_listed, stop.confirmed_ns, stop.at_s, stop.covered_ns = at_rest, at_ns, at_s, None
        stop.is_certain, stop.misses, stop.missed_ns = True, 0, None
        return at_rest

    def merged(self, detections: Sequence[Detection], view: FrameView) -> list[Detection]:
        """Replace all detections of parts of a stationary object by one detection of the whole object, and return the
        detections.

        The background model absorbs an object part by part, and detections of the remaining parts would mislead a
        tracker. The detections of a model that examines whole frames are returned unchanged.
        """
        found = list(detections)
        if view.motion is None:
            return found
        for stop in [stop for stop in self._stops.values() if stop.is_stationary]:
            parts = [one for one in found if self._is_part(one, stop, view)]
            if parts:
                found = [one for one in found if one not in parts]
            if parts and not any(_is_whole(one.box, stop.position) for one in found):
                found.append(_completed(max(parts, key=lambda one: one.box.area), stop, view))
        return found

    def _is_part(self, one: Detection, stop: _Stop, view: FrameView) -> bool:
        """Return whether a detection shows a part of a stationary object.

        Once the background model has absorbed the object, a moving detection at its position shows another object.
        """
        if not _is_within(one.box, stop.position) or _is_whole(one.box, stop.position):
            return False
        moves = one.box not in (view.resting or ())
        if moves and (stop.is_absorbed or (stop.must_be_absorbed and one.label != stop.track.label)):
            return False
        return not any(_is_whole(one.box, other.position) for other in self._stops.values() if other is not stop)

    def held(self, view: FrameView, at_s: float, at_ns: int, found: Sequence[Detection] = ()) -> list[HeldTrack]:
        """Return the stationary tracks without a detection in ``found``. Drop the tracks whose objects have left."""
        if view.motion is None:
            return []
        for name in [name for name, stop in self._stops.items() if _has_left(stop, view, at_s, at_ns)]:
            del self._stops[name]
        tracks = [_held(stop, view, at_ns) for stop in self._stops.values() if stop.is_stationary]
        return [one for one in tracks if not any(_is_whole(detection.box, one.box) for detection in found)]

    def hold(self, names: Iterable[str], at_s: float) -> list[Track]:
        """Continue the named tracks without a detection, and return the tracks whose objects have certainly not
        moved."""
        stops = [self._stops[name] for name in names if name in self._stops]
        for stop in stops:
            stop.at_s, stop.track.box = at_s, stop.position
        return [stop.track for stop in stops if stop.is_certain and stop.is_listed]

    def missed(self, view: FrameView, seen: Collection[str], at_ns: int) -> None:
        """Count a miss for each track whose position the model examined without detecting the track's object.

        An object that the model missed may have left.
        """
        for name in [name for name in self._stops if name not in seen] if view.shown else ():
            stop = self._stops[name]
            if view.shows(stop.position):
                stop.is_certain = False
                if stop.missed_ns is None or at_ns - stop.missed_ns > _APART_S * 1e9:
                    stop.misses, stop.missed_ns = stop.misses + 1, at_ns
            if stop.misses >= _MAX_MISSES:
                del self._stops[name]

    def forget(self, track: str) -> None:
        """Drop a track that has ended."""
        self._stops.pop(track, None)


def _completed(part: Detection, stop: _Stop, view: FrameView) -> Detection:
    """Return a copy of a part's detection with the position of the whole object as its box.

    A moving part may belong to another object that passes in front of the stopped object. Therefore, the copy of a
    moving part has the label and score of the stopped object, and neither attributes nor embeddings.
    """
    known: dict[str, object] = {}
    if part.box not in (view.resting or ()):
        known = {"label": stop.track.label, "score": stop.track.score, "attributes": (), "embeddings": ()}
    return part.model_copy(update={"box": stop.position, **known})


def _held(stop: _Stop, view: FrameView, at_ns: int) -> HeldTrack:
    moving, is_shown = view.moving(stop.position), view.shows(stop.position)
    if moving >= _COVERED:
        stop.covered_ns, stop.is_certain = stop.covered_ns or at_ns, False
    else:
        stop.covered_ns = None
        if view.lists(stop.position) and not is_shown:
            stop.confirmed_ns, stop.is_certain, stop.is_listed = at_ns, True, True
    stop.is_absorbed |= moving == 0.0
    stop.must_be_absorbed = at_ns - stop.since_ns > _ABSORBED_S * 1e9
    may_leave = moving > 0.0 and view.crosses_edge(stop.position)
    return HeldTrack(stop.track.name, stop.position, faint=moving >= _COVERED or is_shown or may_leave)


def _has_left(stop: _Stop, view: FrameView, at_s: float, at_ns: int) -> bool:
    is_lost = at_s - stop.at_s > LOST_S or at_ns - stop.confirmed_ns > UNCONFIRMED_S * 1e9
    is_covered = stop.covered_ns is not None and at_ns - stop.covered_ns > COVERED_S * 1e9
    return is_lost or is_covered or view.excludes(stop.position)


def _are_same(one: Box, other: Box, grown: float = float("inf")) -> bool:
    shared = one.shared(other)  # most boxes do not overlap: `shared > 0` skips the other comparisons
    return shared > 0.0 and other.area <= grown * one.area and shared >= _SAME * min(one.area, other.area)


def _is_whole(box: Box, position: Box) -> bool:
    return _are_same(position, box, _GROWN) and box.area >= _WHOLE * position.area


def _is_within(box: Box, position: Box) -> bool:
    shared = position.shared(box)
    return shared > 0.0 and shared >= _SAME * box.area


def _share(position: Box, boxes: Iterable[Box]) -> float:
    """Return the share of the area of the box ``position`` that ``boxes`` cover. The boxes must not overlap each
    other, because their shared areas are added up."""
    return sum(position.shared(box) for box in boxes) / max(position.area, 1.0)
