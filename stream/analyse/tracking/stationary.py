"""Stationary tracks: objects that stand still where no model looks. Pure.

A pipeline that looks only at moving regions loses an object that has stopped. The agent's background model absorbs
the object, and the agent reports no motion there. As long as nothing moves there, the object is taken to be there
still. From time to time the agent lists the stationary boxes of a frame, and the model looks at them. That look
confirms the object, or ends its track.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ingest.contract.records import MAX_RESTING, Box, Detection, Result
from stream.analyse.geometry import Scale
from stream.analyse.tracking.tracker import LOST_S, HeldTrack, Track

REST_S = 2.0
"""Time in one place after which a track is stationary. The agent's background model takes twice as long to absorb an
object. An object that goes out of sight while it moves was never stationary."""
UNCONFIRMED_S = 120.0
"""Time after which a track is dropped that the agent has not listed and the model has not seen. It is four times the
longest usual keep-alive interval."""
COVERED_S = 10.0
"""Time in which an object that passes in front of a stationary one has passed. After that, both have left."""
_SAME = 0.6
"""Minimum overlap, as a share of the smaller box, of two boxes of one object that has not moved. The background model
absorbs an object part by part, so its boxes differ."""
_WHOLE = 0.7
"""Minimum share of the object's area in a box of the whole object. A smaller box shows a part of it."""
_FULL = 0.95
"""Minimum share of the largest area seen, at which a box becomes the object's place. Boxes of a whole object vary by
this much."""
_GROWN = 1.5
"""Maximum growth of a stationary object's area. A larger box includes another object, or the object comes nearer."""
_COVERED = 0.5
"""Share of a track's box above which it counts as covered. A waving arm, or a person who walks past a car, covers
less than that. An object that leaves moves as a whole."""
_INSIDE = 0.9
"""Share of a moving box inside a stationary place, above which only a part of the object moves, or a person passes in
front of it."""
_OWN = 0.5
"""Minimum share of a listed box inside a place, for the box to be of the object there. Otherwise it is of a larger
object in front of it or beside it."""
_ABSORBED_S = 10.0
"""Time after which the background has certainly absorbed an object that stopped. Motion there with another label is
then of another object."""
_MAX_MISSES = 2
"""Looks in a row in which the model does not find the object, after which its track ends. A model overlooks one
object in one frame."""
_APART_S = 2.0
"""Minimum time between two looks that count separately. In less time the picture hardly changes, and a model
overlooks the same object again."""


class FrameView(NamedTuple):
    """Moving and stationary regions of a frame, in pixels of the epoch's first frame."""

    motion: tuple[Box, ...] | None
    resting: tuple[Box, ...] | None
    shown: tuple[Box, ...]
    """Stationary boxes that the model looked at."""

    @classmethod
    def of(cls, result: Result, scale: Scale) -> FrameView:
        """Return the view of a result."""
        motion, resting, looked_at = result.motion, result.resting, frozenset(result.looked_at)
        return cls(
            None if motion is None else scale.boxes(motion),
            None if resting is None else scale.boxes(resting),
            scale.boxes(box for box in resting or () if box in looked_at),
        )

    def lists(self, place: Box) -> bool:
        """Return whether the agent listed the object in a place as stationary, not a larger one that covers it."""
        own = [box for box in self.resting or () if place.shared(box) >= _OWN * box.area]
        return _share(place, own) >= _COVERED

    def shows(self, place: Box) -> bool:
        """Return whether the model looked at a stationary object in a place."""
        return _share(place, self.shown) >= _COVERED

    def is_at_rest(self, box: Box) -> bool:
        """Return whether a detection is of a stationary object, not of one that moves in front of it."""
        return self.shows(box) and self.moving(box) < _COVERED

    def moving(self, place: Box) -> float:
        """Return the share of a place in which something moves, 0..1."""
        return _share(place, self.motion or ())

    def crosses_edge(self, place: Box) -> bool:
        """Return whether a moving region is partly inside and partly outside of a place."""
        return any(0.0 < place.shared(box) < _INSIDE * box.area for box in self.motion or ())

    def excludes(self, place: Box) -> bool:
        """Return whether the agent listed all stationary boxes, and none of them and no motion is in a place."""
        complete = self.resting is not None and len(self.resting) < MAX_RESTING
        return complete and _share(place, self.resting or ()) + self.moving(place) < _COVERED


@dataclass
class _Stop:
    """A track in one place. Times in ns are of ``TrackTime.lived_ns``, in s of ``TrackTime.advance``."""

    track: Track
    first: Box
    """Box with which the track came to this place."""
    place: Box
    """Last box of the whole object."""
    full_px: float
    """Largest area seen, in square pixels."""
    since_ns: int
    is_stationary: bool
    """Whether the track was seen in this place for long enough."""
    is_listed: bool
    """Whether the agent has listed it since it last moved. Until then, it may have left when it went out of sight."""
    confirmed_ns: int
    at_s: float
    """When it was last seen or held."""
    is_absorbed: bool = False
    """Whether there was a frame without any motion in this place."""
    must_be_absorbed: bool = False
    """Whether ``_ABSORBED_S`` have passed."""
    covered_ns: int | None = None
    """Since when another object covers it."""
    is_certain: bool = True
    """Whether it is certainly there. A covered or overlooked object may have left."""
    misses: int = 0
    missed_ns: int | None = None


class StationaryTracks:
    """The tracks of one camera, and the place and time in which each has stood."""

    def __init__(self) -> None:
        self._stops: dict[str, _Stop] = {}

    def seen(self, track: Track, view: FrameView, at_s: float, at_ns: int) -> bool:
        """Note a track's detection, and return whether it is at rest. A listed object is stationary at once."""
        stop, box, at_rest = self._stops.get(track.name), track.box, view.is_at_rest(track.box)
        if stop is None or not _are_same(stop.first, box, _GROWN):
            self._stops[track.name] = _Stop(track, box, box, box.area, at_ns, at_rest, at_rest, at_ns, at_s)
            return at_rest
        if box.area >= _FULL * stop.full_px:
            stop.place, stop.full_px = box, max(stop.full_px, box.area)
        stop.is_stationary |= at_rest or at_ns - stop.since_ns >= REST_S * 1e9
        stop.is_listed, stop.confirmed_ns, stop.at_s, stop.covered_ns = at_rest, at_ns, at_s, None
        stop.is_certain, stop.misses, stop.missed_ns = True, 0, None
        return at_rest

    def merged(self, detections: Sequence[Detection], view: FrameView) -> list[Detection]:
        """Return detections in which the parts of a stationary object are replaced by one of its full size.

        The background model absorbs an object part by part, and the remaining parts would mislead a tracker. A model
        that looks at whole frames finds whole objects.
        """
        found = list(detections)
        if view.motion is None:
            return found
        for stop in [stop for stop in self._stops.values() if stop.is_stationary]:
            parts = [one for one in found if self._is_part(one, stop, view)]
            if parts:
                found = [one for one in found if one not in parts]
            if parts and not any(_is_whole(one.box, stop.place) for one in found):
                found.append(_completed(max(parts, key=lambda one: one.box.area), stop, view))
        return found

    def _is_part(self, one: Detection, stop: _Stop, view: FrameView) -> bool:
        """Return whether a detection is a part of a stationary object. A moving one is not, once that is absorbed."""
        if not _is_within(one.box, stop.place) or _is_whole(one.box, stop.place):
            return False
        moves = one.box not in (view.resting or ())
        if moves and (stop.is_absorbed or (stop.must_be_absorbed and one.label != stop.track.label)):
            return False
        return not any(_is_whole(one.box, other.place) for other in self._stops.values() if other is not stop)

    def held(self, view: FrameView, at_s: float, at_ns: int, found: Sequence[Detection] = ()) -> list[HeldTrack]:
        """Return the stationary tracks without a detection in ``found``. Drop those that have left."""
        if view.motion is None:
            return []
        for name in [name for name, stop in self._stops.items() if _has_left(stop, view, at_s, at_ns)]:
            del self._stops[name]
        tracks = [_held(stop, view, at_ns) for stop in self._stops.values() if stop.is_stationary]
        return [one for one in tracks if not any(_is_whole(detection.box, one.box) for detection in found)]

    def hold(self, names: Iterable[str], at_s: float) -> list[Track]:
        """Note that tracks were held, and return those that certainly stand where they were seen last."""
        stops = [self._stops[name] for name in names if name in self._stops]
        for stop in stops:
            stop.at_s, stop.track.box = at_s, stop.place
        return [stop.track for stop in stops if stop.is_certain and stop.is_listed]

    def missed(self, view: FrameView, seen: Collection[str], at_ns: int) -> None:
        """Note the tracks whose place the model looked at without finding them. Such a track may have left."""
        for name in [name for name in self._stops if name not in seen] if view.shown else ():
            stop = self._stops[name]
            if view.shows(stop.place):
                stop.is_certain = False
                if stop.missed_ns is None or at_ns - stop.missed_ns > _APART_S * 1e9:
                    stop.misses, stop.missed_ns = stop.misses + 1, at_ns
            if stop.misses >= _MAX_MISSES:
                del self._stops[name]

    def forget(self, track: str) -> None:
        """Drop a track that has ended."""
        self._stops.pop(track, None)


def _completed(part: Detection, stop: _Stop, view: FrameView) -> Detection:
    """Return a part as the whole object. A moving part may be of an object in front, so its label does not count."""
    known = {} if part.box in (view.resting or ()) else {"label": stop.track.label, "score": stop.track.score}
    return part.model_copy(update={"box": stop.place, **known})


def _held(stop: _Stop, view: FrameView, at_ns: int) -> HeldTrack:
    moving, is_shown = view.moving(stop.place), view.shows(stop.place)
    if moving >= _COVERED:
        stop.covered_ns, stop.is_certain = stop.covered_ns or at_ns, False
    else:
        stop.covered_ns = None
        if view.lists(stop.place) and not is_shown:
            stop.confirmed_ns, stop.is_certain, stop.is_listed = at_ns, True, True
    stop.is_absorbed |= moving == 0.0
    stop.must_be_absorbed = at_ns - stop.since_ns > _ABSORBED_S * 1e9
    may_leave = moving > 0.0 and view.crosses_edge(stop.place)
    return HeldTrack(stop.track.name, stop.place, faint=moving >= _COVERED or is_shown or may_leave)


def _has_left(stop: _Stop, view: FrameView, at_s: float, at_ns: int) -> bool:
    is_lost = at_s - stop.at_s > LOST_S or at_ns - stop.confirmed_ns > UNCONFIRMED_S * 1e9
    is_covered = stop.covered_ns is not None and at_ns - stop.covered_ns > COVERED_S * 1e9
    return is_lost or is_covered or view.excludes(stop.place)


def _are_same(one: Box, other: Box, grown: float = float("inf")) -> bool:
    shared = one.shared(other)  # most boxes share nothing, so that the rest is seldom computed
    return shared > 0.0 and other.area <= grown * one.area and shared >= _SAME * min(one.area, other.area)


def _is_whole(box: Box, place: Box) -> bool:
    return _are_same(place, box, _GROWN) and box.area >= _WHOLE * place.area


def _is_within(box: Box, place: Box) -> bool:
    shared = place.shared(box)
    return shared > 0.0 and shared >= _SAME * box.area


def _share(place: Box, boxes: Iterable[Box]) -> float:
    """Return the share of a place that boxes cover, which do not overlap each other."""
    return sum(place.shared(box) for box in boxes) / max(place.area, 1.0)
