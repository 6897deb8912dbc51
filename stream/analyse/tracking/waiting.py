"""New tracks that wait until they are compared with lost tracks, and their frames until then. Pure.

Rules do not see a waiting track, because its name may change. When the wait ends, they process its frames.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ingest.contract.records import Result
from stream.analyse.rule import Scene
from stream.analyse.tracking.tracker import Track


class EarlierFrame(NamedTuple):
    """A frame in which a track waited. ``scene`` has only this track."""

    result: Result
    scene: Scene
    at_s: float
    """Track time of the frame, in seconds since the epoch's first result."""


class WaitingTrack(NamedTuple):
    """A track with the frames in which it waited, oldest first: at most about a second of frames."""

    track: Track
    first_name: str
    """The name that the track had while it waited. ``track`` has its final name when the wait has ended."""
    frames: list[EarlierFrame]


class WaitingTracks:
    """The waiting tracks of one camera, lane and pipeline."""

    def __init__(self) -> None:
        self._waits: dict[str, WaitingTrack] = {}

    @property
    def names(self) -> frozenset[str]:
        """The present names of the waiting tracks."""
        return frozenset(self._waits)

    def note(self, track: Track, frame: EarlierFrame) -> None:
        """Keep a frame in which a track waits."""
        self._waits.setdefault(track.name, WaitingTrack(track, track.name, [])).frames.append(frame)

    def end(self, pending: Collection[str]) -> list[WaitingTrack]:
        """Remove and return the tracks that no longer wait, in the order in which they began to wait. ``pending`` has
        the names of the tracks that still wait."""
        return [self._waits.pop(name) for name in list(self._waits) if name not in pending]
