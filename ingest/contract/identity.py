"""Identity of a frame (camera, epoch, sequence number), names of lanes (``live``, ``late``, replays) and of places.

``epoch`` grows with every start of a capture and never decreases, even when a camera moves to another agent. ``seq``
counts captured frames from 0 without gaps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$"
"""Pattern of the names of cameras, sensors, rules and pipelines: DNS-like, so that a name can be a Kafka key, part of
a path and a metric label."""

LIVE = "live"
LATE = "late"
_REPLAY = "replay-"
_RUN = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_REPLAY_LANE = re.compile(_REPLAY + _RUN.pattern + r"(?:\.[0-9]{1,6})?")
"""Pattern of the names of a replay's lanes. The names of a replay's second and later lanes end with a number."""
_FRAME = re.compile(NAME_PATTERN[:-1] + r"/[0-9]{1,20}/[0-9]{1,20}$", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class FrameId:
    """The identity of one captured frame. Identities are ordered by (camera, epoch, seq)."""

    camera: str
    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.camera}/{self.epoch}/{self.seq}"

    @classmethod
    def parse(cls, text: str) -> FrameId:
        """Parse a frame id ``camera/epoch/seq``. Raise ValueError for a text of any other form."""
        if not _FRAME.fullmatch(text):
            raise ValueError(f"frame id {text!r}: expected camera/epoch/seq")
        camera, epoch, seq = text.rsplit("/", 2)
        return cls(camera, int(epoch), int(seq))


def next_epoch(last: int | None, unix_time_s: int) -> int:
    """Return the epoch of a capture that starts now: the last epoch plus one, or the Unix time if that is larger.

    Thanks to the Unix time, the numbers grow even when a camera moves to an agent that does not know the camera's
    history.
    """
    return unix_time_s if last is None else max(last + 1, unix_time_s)


def replay_lane(run: str) -> str:
    """Return the name of a replay's first lane. Raise ValueError if ``run`` is not a valid name of a replay."""
    if not _RUN.fullmatch(run):
        raise ValueError(f"replay run {run!r}: expected lower-case letters, digits and dashes, at most 41 characters")
    return _REPLAY + run


def is_replay(lane: str) -> bool:
    """Return whether a lane belongs to a replay of dead letters."""
    return _REPLAY_LANE.fullmatch(lane) is not None


def is_late(lane: str) -> bool:
    """Return whether a lane carries old frames (late or replayed), whose events must be marked as late."""
    return lane != LIVE


def place_key(name: str, site: str = "", place: str | None = None) -> str:
    """Return the full name of the place of a camera or sensor: ``site/place``.

    If no place is configured, the name of the camera or sensor is its place.

    The full name determines the partition of the topic ``events``, so all events of one place are in one partition.
    """
    return (f"{site}/{place}" if site else place) if place else name
