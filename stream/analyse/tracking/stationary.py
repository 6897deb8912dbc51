"""What stands still where no model looks. Pure.

A pipeline that looks at moving regions does not see what has stopped: the agent's background takes it in, and no
region is named there any more. Where a track has stood still and nothing moves, it still is. Now and then the agent
names what rests in the picture, and the model looks there: that proves it, or ends it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ingest.contract.records import MAX_RESTING, Box, Detection, Result
from stream.analyse.tracking.scale import Scale
from stream.analyse.tracking.tracker import LOST_S, HeldTrack, Track

REST_S = 2.0
"""A track whose detections have been in one place for so long stands still. The agent's background takes twice as
long to take it in; what goes out of sight while it moves has never stood."""
UNPROVED_S = 120.0
"""A track that nobody has named or seen for so long is held no more: four times the longest usual keep-alive."""
COVERED_S = 10.0
"""What passes in front of something that stands has passed after so long; or else that has gone with it."""
_SAME = 0.6
"""Of the smaller of two boxes, the share that both have if they are of one thing that has not moved: parts of it are
taken in by the background one after the other."""
_WHOLE = 0.7
"""A box that has less of the area is a part only."""
_FULL = 0.95
"""Boxes of all of it tremble by that."""
_GROWN = 1.5
"""A box that has more of the area is of something else too, or comes nearer."""
_COVERED = 0.5
"""Of a track's box: less than this moves when somebody waves an arm or walks past a car. What leaves moves whole."""
_INSIDE = 0.9
"""Of a moving box: with more of it where something stands, that moves an arm, or somebody passes in front of it."""
_ITS_OWN = 0.5
"""Of what rests: with less of it in a place, it is something larger in front of that, or beside it."""
_TAKEN_IN_S = 10.0
"""What is found in a place so long after something has stopped there, and is of another kind, is no part of that."""
_MISSES = 2
"""Looks in a row at where it stood that did not find it: a model overlooks one thing in one frame."""
_APART_S = 2.0
"""Looks that follow each other sooner are one: the picture is the same, and what is overlooked in it is, too."""


class FrameView(NamedTuple):
    """Where something moved or rests in a frame, and where the model looked, in pixels of the epoch's first frame."""

    motion: tuple[Box, ...] | None
    resting: tuple[Box, ...] | None
    shown: tuple[Box, ...]
    """Of what rests, what the model was shown."""

    @classmethod
    def of(cls, result: Result, scale: Scale) -> FrameView:
        """Return the view of a result."""
        motion, resting, looked_at = result.motion, result.resting, frozenset(result.looked_at)
        return cls(
            None if motion is None else scale.boxes(motion),
            None if resting is None else scale.boxes(resting),
            scale.boxes(box for box in resting or () if box in looked_at),
        )

    def is_named(self, place: Box) -> bool:
        """Tell whether the agent has told that just this rests: not that it lies in a place where a bus does."""
        its_own = [box for box in self.resting or () if place.shared(box) >= _ITS_OWN * box.area]
        return _share(place, its_own) >= _COVERED

    def is_looked_at(self, place: Box) -> bool:
        """Tell whether the model was shown what rests in a place."""
        return _share(place, self.shown) >= _COVERED

    def rests(self, box: Box) -> bool:
        """Tell whether a detection was made in a look at what rests, and is not of what moves in front of that."""
        return self.is_looked_at(box) and self.moved(box) < _COVERED

    def moved(self, place: Box) -> float:
        """Return the share of a place in which something moves."""
        return _share(place, self.motion or ())

    def leaves(self, place: Box) -> bool:
        """Tell whether something moves that is partly in a place and partly beside it."""
        return any(0.0 < place.shared(box) < _INSIDE * box.area for box in self.motion or ())

    def denies(self, place: Box) -> bool:
        """Tell whether the agent has told all that rests, and nothing rests or moves in a place."""
        told = self.resting is not None and len(self.resting) < MAX_RESTING
        return told and _share(place, self.resting or ()) + self.moved(place) < _COVERED


@dataclass
class _Stand:
    """A track's stand: ``first`` is where it came to one, ``place`` where it was last seen in full."""

    track: Track
    first: Box
    place: Box
    full_px: float
    since_ns: int
    stood: bool
    """Whether it was seen to stand for long enough."""
    named: bool
    """Whether it is known to rest since it last moved. Until then, what goes out of sight may have gone for good."""
    proved_ns: int
    at_s: float
    """In the time of tracks, when it was last seen or held."""
    taken_in: bool = False
    """Whether there has been a frame in which nothing of it moved any more."""
    is_restless: bool = False
    """Whether it should have been taken in by now."""
    covered_ns: int | None = None
    sure: bool = True
    misses: int = 0
    missed_ns: int | None = None


class StationaryTracks:
    """The tracks of one camera, and for how long each has stood where it is."""

    def __init__(self) -> None:
        self._stands: dict[str, _Stand] = {}

    def seen(self, track: Track, view: FrameView, at_s: float, at_ns: int) -> bool:
        """Take note of a track's detection, and tell whether it rests. What the agent names so stands already."""
        stand, box, rests = self._stands.get(track.name), track.box, view.rests(track.box)
        if stand is None or not _are_same(stand.first, box, _GROWN):
            self._stands[track.name] = _Stand(track, box, box, box.area, at_ns, rests, rests, at_ns, at_s)
            return rests
        if box.area >= _FULL * stand.full_px:
            stand.place, stand.full_px = box, max(stand.full_px, box.area)
        stand.stood |= rests or at_ns - stand.since_ns >= REST_S * 1e9
        stand.named, stand.proved_ns, stand.at_s, stand.covered_ns = rests, at_ns, at_s, None
        stand.sure, stand.misses, stand.missed_ns = True, 0, None
        return rests

    def whole(self, detections: Sequence[Detection], view: FrameView) -> list[Detection]:
        """Return detections in which the parts of one thing that stands are one, as large as that was.

        The background takes things in piece by piece, and what is left of one would lead a tracker astray. A model
        that looks at whole frames finds whole things.
        """
        found = list(detections)
        if view.motion is None:
            return found
        for stand in [stand for stand in self._stands.values() if stand.stood]:
            parts = [one for one in found if self._is_part(one, stand, view)]
            if parts:
                found = [one for one in found if one not in parts]
            if parts and not any(_is_whole(one.box, stand.place) for one in found):
                found.append(_completed(max(parts, key=lambda one: one.box.area), stand, view))
        return found

    def _is_part(self, one: Detection, stand: _Stand, view: FrameView) -> bool:
        """Tell whether that is a part of something that stands: what moves there once that is taken in is not."""
        if not _is_within(one.box, stand.place) or _is_whole(one.box, stand.place):
            return False
        moves = one.box not in (view.resting or ())
        if moves and (stand.taken_in or (stand.is_restless and one.label != stand.track.label)):
            return False
        return not any(_is_whole(one.box, other.place) for other in self._stands.values() if other is not stand)

    def holds(self, view: FrameView, at_s: float, at_ns: int, found: Sequence[Detection] = ()) -> list[HeldTrack]:
        """Return the tracks that stand still, but for those that are ``found``. What has gone is forgotten."""
        if view.motion is None:
            return []
        for name in [name for name, stand in self._stands.items() if _has_gone(stand, view, at_s, at_ns)]:
            del self._stands[name]
        holds = [_hold(stand, view, at_ns) for stand in self._stands.values() if stand.stood]
        return [hold for hold in holds if not any(_is_whole(one.box, hold.box) for one in found)]

    def held(self, names: Iterable[str], at_s: float) -> list[Track]:
        """Take note that tracks were held, and return those that surely stand where they were seen last."""
        stands = [self._stands[name] for name in names if name in self._stands]
        for stand in stands:
            stand.at_s, stand.track.box = at_s, stand.place
        return [stand.track for stand in stands if stand.sure and stand.named]

    def missed(self, view: FrameView, seen: Collection[str], at_ns: int) -> None:
        """Take note of what was looked at and is not among the tracks that were ``seen``: it may have gone."""
        for name in [name for name in self._stands if name not in seen] if view.shown else ():
            stand = self._stands[name]
            if view.is_looked_at(stand.place):
                stand.sure = False
                if stand.missed_ns is None or at_ns - stand.missed_ns > _APART_S * 1e9:
                    stand.misses, stand.missed_ns = stand.misses + 1, at_ns
            if stand.misses >= _MISSES:
                del self._stands[name]

    def forget(self, track: str) -> None:
        """Forget a track that is over."""
        self._stands.pop(track, None)


def _completed(part: Detection, stand: _Stand, view: FrameView) -> Detection:
    """Return a part as the whole. One that moves may be of something in front of it, and does not tell what it is."""
    known = {} if part.box in (view.resting or ()) else {"label": stand.track.label, "score": stand.track.score}
    return part.model_copy(update={"box": stand.place, **known})


def _hold(stand: _Stand, view: FrameView, at_ns: int) -> HeldTrack:
    moved, looked_at = view.moved(stand.place), view.is_looked_at(stand.place)
    if moved >= _COVERED:
        stand.covered_ns, stand.sure = stand.covered_ns or at_ns, False
    else:
        stand.covered_ns = None
        if view.is_named(stand.place) and not looked_at:
            stand.proved_ns, stand.sure, stand.named = at_ns, True, True
    stand.taken_in |= moved == 0.0
    stand.is_restless = at_ns - stand.since_ns > _TAKEN_IN_S * 1e9
    leaves = moved > 0.0 and view.leaves(stand.place)
    return HeldTrack(stand.track.name, stand.place, faint=moved >= _COVERED or looked_at or leaves)


def _has_gone(stand: _Stand, view: FrameView, at_s: float, at_ns: int) -> bool:
    lost = at_s - stand.at_s > LOST_S or at_ns - stand.proved_ns > UNPROVED_S * 1e9
    covered = stand.covered_ns is not None and at_ns - stand.covered_ns > COVERED_S * 1e9
    return lost or covered or view.denies(stand.place)


def _are_same(one: Box, other: Box, grown: float = float("inf")) -> bool:
    shared = one.shared(other)  # most share nothing: that is found out first
    return shared > 0.0 and other.area <= grown * one.area and shared >= _SAME * min(one.area, other.area)


def _is_whole(box: Box, place: Box) -> bool:
    return _are_same(place, box, _GROWN) and box.area >= _WHOLE * place.area


def _is_within(box: Box, place: Box) -> bool:
    shared = place.shared(box)
    return shared > 0.0 and shared >= _SAME * box.area


def _share(place: Box, boxes: Iterable[Box]) -> float:
    """Return what share of a place boxes cover that do not cover each other."""
    return sum(place.shared(box) for box in boxes) / max(place.area, 1.0)
