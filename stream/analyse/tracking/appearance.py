"""Re-identification of lost tracks by the appearance of their objects. Pure.

A second-stage model gives each detected object an embedding, a vector that is similar for pictures of one object. A
new track gets the name of a lost track whose mean embedding is similar enough, and clearly more similar than the mean
embedding of every other known track. In doubt, the new track keeps its own name: a track that was not re-identified
counts an object twice at most, and a wrong re-identification mixes two objects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
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
    """

    def __init__(self, config: AppearanceConfig) -> None:
        self.config = config
        self._window_ns = round(config.window_s * 1e9)
        self._known: dict[str, _KnownTrack] = {}
        self._since_ns: dict[str, int] = {}
        """Times at which the new tracks that wait for a better view were confirmed."""

    @property
    def size(self) -> int:
        """Number of tracks whose mean embeddings are kept."""
        return len(self._known)

    def step(
        self,
        tracks: Sequence[Track],
        detections: Iterable[Detection],
        followed: Collection[str],
        now_ns: int,
        has_left: Callable[[str], bool],
        at_edge: Callable[[Box], bool],
    ) -> Reidentified:
        """Process the tracks and detections of the next frame, and rename each new track whose object was lost
        before.

        ``followed`` has the names of all tracks that the tracker still follows, with or without a detection in this
        frame. These tracks cannot return, so no name belongs to two tracks. ``has_left`` returns whether the object
        of a lost track has left the picture; without ``also_left``, such a track cannot return either.

        A new track waits if its object may be a lost object that is still partly covered. The caller must not report
        a waiting track. A track that begins at the edge of the picture, where ``at_edge`` is true, never waits.
        """
        self.expire(now_ns)
        shown = {one.box: one for one in detections}
        looks = {box: look for box, one in shown.items() if (look := self._look(one))}
        new = [one for one in tracks if not one.held and (one.frames == 1 or one.name in self._since_ns)]
        lost = self._lost(followed, now_ns, has_left) if new else set[str]()
        names = {one.name for one in new}
        tracked = {one.box for one in tracks if one.name not in names}
        found: list[tuple[Track, _KnownTrack]] = []
        waiting = set[str]()
        for track in new:
            if not lost:
                break
            others = [look for box, look in looks.items() if box != track.box and box not in tracked]
            if earlier := self._match(looks.get(track.box), others, lost):
                found.append((track, earlier))
                lost.discard(earlier.track.name)
            elif self._waits(track, shown[track.box], looks.get(track.box), lost, now_ns) and not at_edge(track.box):
                waiting.add(track.name)
        missed = self._since_ns.keys() & set(followed) - {one.name for one in tracks}
        self._since_ns = {name: self._since_ns.get(name, now_ns) for name in waiting | missed}
        for track, earlier in found:
            track.resume(earlier.track, shown[track.box])
            earlier.track = track
        for track in tracks:
            if track.name not in waiting:
                self._note(track, None if track.held else looks.get(track.box), now_ns)
        while len(self._known) > MAX_KNOWN:
            del self._known[min(self._known, key=lambda name: (self._known[name].seen_ns, name))]
        return Reidentified(tuple(track.name for track, _ in found), frozenset(waiting))

    def may_return(self, track: str, now_ns: int) -> bool:
        """Return whether a track that is no longer seen may still return."""
        known = self._known.get(track)
        return known is not None and not known.ended and now_ns - known.seen_ns <= self._window_ns

    def end(self, track: str) -> None:
        """Note that the rules have forgotten a track, so that it must not return."""
        if track in self._known:
            self._known[track].ended = True

    def expire(self, now_ns: int) -> None:
        """Drop the embeddings of the tracks that were not seen for ``RIVAL_WINDOWS`` times ``window_s``."""
        oldest_ns = now_ns - RIVAL_WINDOWS * self._window_ns
        for name in [name for name, known in self._known.items() if known.seen_ns < oldest_ns]:
            del self._known[name]

    def _lost(self, followed: Collection[str], now_ns: int, has_left: Callable[[str], bool]) -> set[str]:
        """Return the names of the tracks that can return in this frame."""
        names = (name for name in self._known if name not in followed and self.may_return(name, now_ns))
        return {name for name in names if self.config.also_left or not has_left(name)}

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
        """Return whether a new track waits for an embedding, or for an embedding that is more similar.

        A track that is similar enough to a lost track, but as similar to another, does not wait.
        """
        if now_ns - self._since_ns.get(track.name, now_ns) >= WAIT_S * 1e9:
            return False
        if look is None:
            return any(one.name == self.config.second_model and one.missing for one in detection.attributes)
        best = max(self._known[name].similarity(look) for name in lost)
        return _PLAUSIBLE <= best < self.config.min_similarity

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
