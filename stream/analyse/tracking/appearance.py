"""Re-identification of lost tracks by the appearance of their objects. Pure.

A second-stage model gives each detected object an embedding, a vector that is similar for pictures of one object. A
new track gets the name of a lost track whose mean embedding is similar enough, and clearly more similar than the mean
embedding of every other known track. In doubt, the new track keeps its own name: a track that was not re-identified
counts an object twice at most, and a wrong re-identification mixes two objects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ingest.contract.records import Box, Detection
from ingest.site import AppearanceConfig
from stream.analyse.tracking.tracker import Track

MEMORY_FRAMES = 30
"""Number of embeddings over which the mean of a track runs: three to six seconds. From then on, each new embedding
has a weight of 1/30. With a shorter mean, the last pictures before an occlusion, in which the object is partly
covered, would outweigh the earlier ones."""
RIVAL_WINDOWS = 2.0
"""Multiple of ``window_s`` for which a track that is no longer seen still competes. An object that returns after
``window_s`` gets a new name. Without its mean embedding, it could get the name of a similar object that was lost
later."""
MAX_KNOWN = 256
"""Maximum number of tracks of one camera whose mean embeddings are kept: 1 MB with 512 numbers per embedding. Above
this number, the track that was not seen for the longest time is dropped."""
WAIT_S = 1.0
"""Maximum time in seconds for which a new track waits for a better view of its object. A person who comes out from
behind a wall is fully visible after half a second to a second."""
_PLAUSIBLE = 0.5
"""Minimum similarity to a lost track for which a new track waits. With the shipped model, partly covered people have
a similarity of 0.6 to 0.9 to themselves, and people in different colours 0.1 to 0.5."""
_SAME_OBJECT = 0.8
"""A box shows a part of a track's own object if the track's box and this box share at least this part of the smaller
one. Detectors often give a partly covered person a second box of the upper body."""
_MAY_IMPROVE = frozenset({"small", "unsure", "failed"})
"""Reasons for a missing embedding that a better view of the object may remove. The other reasons, such as ``limit``
and ``no_model``, do not depend on the view."""
_DIGITS = 6
"""Number of decimal places to which similarities are compared. Further places depend on the order in which a
processor adds numbers."""

Vector = npt.NDArray[np.float64]


class _Appearance(NamedTuple):
    """An embedding of one detection: a vector of length 1, and the id of the model that computed the embedding."""

    model: str
    vector: Vector


@dataclass
class _KnownTrack:
    """A track with the running mean of its embeddings."""

    track: Track
    model: str
    mean: Vector
    count: int
    seen_ns: int
    ended: bool = False
    """Whether the rules have forgotten the track. An ended track never returns."""

    def add(self, found: _Appearance) -> None:
        """Add an embedding to the mean. Begin a new mean if another model computed the embedding."""
        if (found.model, found.vector.size) != (self.model, self.mean.size):
            self.model, self.mean, self.count = found.model, found.vector, 1
            return
        self.count = min(self.count + 1, MEMORY_FRAMES)
        self.mean = self.mean + (found.vector - self.mean) / self.count

    def similarity(self, found: _Appearance) -> float:
        """Return the cosine of the angle between the mean and an embedding; -1 if another model computed the
        embedding."""
        if (found.model, found.vector.size) != (self.model, self.mean.size):
            return -1.0
        length = float(np.sqrt((self.mean * self.mean).sum()))
        return round(float((self.mean * found.vector).sum()) / length, _DIGITS) if length else -1.0


class Reidentified(NamedTuple):
    """Names of the tracks that have returned with this frame, and of the new tracks that wait for a better view."""

    returned: tuple[str, ...]
    waiting: frozenset[str]


class AppearanceMemory:
    """The mean embeddings of the present and lost tracks of one camera, lane and pipeline.

    All times are capture times in ns since the first frame of the epoch (capture run). The same frames give the same
    names, so a worker that reads the frames again after a restart gives each track the name that it had before.

    ``has_left`` returns whether the object of a lost track has left the picture. Without ``also_left``, such a track
    cannot return.
    """

    def __init__(self, config: AppearanceConfig, has_left: Callable[[str], bool]) -> None:
        self.config = config
        self._has_left = has_left
        self._window_ns = round(config.window_s * 1e9)
        self._known: dict[str, _KnownTrack] = {}
        self._since_ns: dict[str, int] = {}
        """Times at which the new tracks that wait for a better view were confirmed."""

    @property
    def size(self) -> int:
        """Number of tracks whose mean embeddings are kept."""
        return len(self._known)

    @property
    def pending(self) -> Set[str]:
        """Names of the tracks that wait for a better view, with or without a detection in the last frame."""
        return self._since_ns.keys()

    def step(
        self,
        tracks: Sequence[Track],
        detections: Iterable[Detection],
        followed: Collection[str],
        now_ns: int,
        at_edge: Callable[[Box], bool],
    ) -> Reidentified:
        """Process the tracks and detections of the next frame, and rename each new track whose object was lost
        before.

        ``followed`` has the names of all tracks that the tracker still follows, with or without a detection in this
        frame. These tracks cannot return, so no name belongs to two tracks.

        A new track waits if its object may be a lost object that is still partly covered, or if an object beside it
        that is not tracked yet looks alike. Rules must not see the name of a waiting track. A track that begins at
        the edge of the picture, where ``at_edge`` is true, never waits.
        """
        self._expire(now_ns)
        shown = {one.box: one for one in detections}
        looks = {box: look for box, one in shown.items() if (look := self._look(one))}
        new = [one for one in tracks if not one.held and (one.frames == 1 or one.name in self._since_ns)]
        lost = self._lost(followed, now_ns) if new else set[str]()
        names = {one.name for one in new}
        tracked = {one.box for one in tracks if one.name not in names}
        found: list[tuple[Track, _KnownTrack]] = []
        waiting = set[str]()
        for track in new:
            if not lost:
                break
            alike = {name for name in lost if self._known[name].track.labels.keys() & track.labels.keys()}
            look = looks.get(track.box)
            others = [one for box, one in looks.items() if box not in tracked and not _show_one(box, track.box)]
            if earlier := self._match(look, others, alike):
                found.append((track, earlier))
                lost.discard(earlier.track.name)
            elif self._waits(track, shown[track.box], look, alike, now_ns) and not at_edge(track.box):
                waiting.add(track.name)
        missed = self._since_ns.keys() & set(followed) - {one.name for one in tracks}
        self._since_ns = {name: self._since_ns.get(name, now_ns) for name in waiting | missed}
        for track, earlier in found:
            track.resume(earlier.track)
            earlier.track = track
        for track in tracks:
            if track.name not in waiting:
                self._note(track, None if track.held else looks.get(track.box), now_ns)
        while len(self._known) > MAX_KNOWN:
            del self._known[min(self._known, key=lambda name: (self._known[name].seen_ns, name))]
        return Reidentified(tuple(track.name for track, _ in found), frozenset(waiting))

    def may_return(self, track: str, now_ns: int) -> bool:
        """Return whether a track that is no longer seen may still return, so that rules must keep its state."""
        known = self._known.get(track)
        if known is None or known.ended or now_ns - known.seen_ns > self._window_ns:
            return False
        return self.config.also_left or not self._has_left(track)

    def pass_time(self, now_ns: int) -> None:
        """Process a frame in which nothing moved: drop old embeddings, and end the waits that have lasted for
        ``WAIT_S``."""
        self._expire(now_ns)
        self._since_ns = {name: since for name, since in self._since_ns.items() if now_ns - since < WAIT_S * 1e9}

    def end(self, track: str) -> None:
        """Note that the rules have forgotten a track, so that it must not return."""
        if track in self._known:
            self._known[track].ended = True

    def _expire(self, now_ns: int) -> None:
        """Drop the embeddings of the tracks that were not seen for ``RIVAL_WINDOWS`` times ``window_s``."""
        oldest_ns = now_ns - RIVAL_WINDOWS * self._window_ns
        for name in [name for name, known in self._known.items() if known.seen_ns < oldest_ns]:
            del self._known[name]

    def _lost(self, followed: Collection[str], now_ns: int) -> set[str]:
        """Return the names of the tracks that can return in this frame."""
        return {name for name in self._known if name not in followed and self.may_return(name, now_ns)}

    def _match(
        self, look: _Appearance | None, others: Iterable[_Appearance], lost: Collection[str]
    ) -> _KnownTrack | None:
        """Return the lost track of the object with the appearance ``look``; None in doubt.

        The similarity must exceed the similarity of every other known track, and of ``others``, the objects in the
        frame that are not tracked or decided yet, by ``min_lead``.
        """
        if look is None:
            return None
        ranked = sorted(((known.similarity(look), name) for name, known in self._known.items()), reverse=True)
        similarity, name = ranked[0]
        if name not in lost or similarity < self.config.min_similarity:
            return None
        best = self._known[name]
        rival = max([-1.0, *(one for one, _ in ranked[1:]), *(best.similarity(one) for one in others)])
        return best if similarity - rival >= self.config.min_lead else None

    def _waits(
        self, track: Track, detection: Detection, look: _Appearance | None, lost: Collection[str], now_ns: int
    ) -> bool:
        """Return whether a new track, which was not matched, waits for an embedding, or for an embedding that is more
        similar, or until other objects are tracked.

        A track that is similar enough to a lost track, but as similar to another known track, does not wait.
        """
        if not lost or now_ns - self._since_ns.get(track.name, now_ns) >= WAIT_S * 1e9:
            return False
        if look is None:
            reasons = {one.missing for one in detection.attributes if one.name == self.config.second_model}
            return bool(reasons & _MAY_IMPROVE)
        best = max(self._known[name].similarity(look) for name in lost)
        if best >= self.config.min_similarity:
            return self._match(look, (), lost) is not None
        return best >= _PLAUSIBLE

    def _note(self, track: Track, look: _Appearance | None, now_ns: int) -> None:
        known = self._known.get(track.name)
        if known is None and look:
            self._known[track.name] = _KnownTrack(track, look.model, look.vector, 1, now_ns)
        elif known:
            known.seen_ns = now_ns
            if look:
                known.add(look)

    def _look(self, detection: Detection) -> _Appearance | None:
        for one in detection.embeddings:
            if one.name == self.config.second_model:
                numbers = np.frombuffer(one.values, np.int8).astype(np.float64)
                length = float(np.sqrt((numbers * numbers).sum()))
                return _Appearance(one.model, numbers / length) if length else None
        return None


def _show_one(one: Box, other: Box) -> bool:
    """Return whether two boxes show one object, or a part of it."""
    return one.shared(other) >= _SAME_OBJECT * min(one.area, other.area)
