"""A frame as camera rules see it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingest.contract.records import Box, Point


@dataclass(frozen=True, slots=True)
class SceneTrack:
    """One tracked object in one frame. Coordinates are in pixels of the scene."""

    name: str
    """Name of the track, the same after a restart that has read the track's beginning again."""
    label: str
    """Label that the object had most often so far, weighted by score."""
    score: float
    box: Box
    at_rest: bool
    """Whether the object is known to stand still. It may then have no detection in this frame."""
    trail: Sequence[Point]
    """The last centres of its box, oldest first. It grows with later frames: do not keep it."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All confirmed tracks of one frame that was looked at, and an account of the frames before it that were not."""

    frame: str
    """The frame's name within its camera, ``epoch-seq``."""
    at_ns: int
    """Capture time since the epoch's first frame. It never goes back, also when the camera's clock does."""
    width: int
    """Width of the epoch's first picture, in pixels. All scenes of an epoch have it."""
    height: int
    outcome: str
    """``classified``, or ``empty`` for a frame in which nothing moved."""
    tracks: tuple[SceneTrack, ...]
    gap_s: float = 0.0
    """Time since the scene before, without the time in which the agent saw that nothing moved."""
    missing: Mapping[str, int] | None = None
    """Frames since the scene before, by the reason why they are missing: reasons of the agent and of shedding, and
    ``unknown`` for frames without any record."""
