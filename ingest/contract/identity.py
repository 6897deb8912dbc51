"""Who a frame is: camera, epoch, sequence number; and the lane it travels on.

``epoch`` is raised at every start of a capture and never goes back, also when a camera moves to another
agent; ``seq`` counts captured frames from 0 without holes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$"
"""Names of cameras, sensors, rules and pipelines: DNS-like, so that they serve as keys, paths and labels."""

LIVE = "live"
LATE = "late"
_REPLAY = "replay-"
_RUN = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_REPLAY_LANE = re.compile(_REPLAY + _RUN.pattern + r"(?:\.[0-9]{1,6})?")
"""One replay may need several lanes: they are numbered."""
_FRAME = re.compile(NAME_PATTERN[:-1] + r"/[0-9]{1,20}/[0-9]{1,20}$", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class FrameId:
    """The identity of one captured frame. Ordered by (camera, epoch, seq)."""

    camera: str
    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.camera}/{self.epoch}/{self.seq}"

    @classmethod
    def parse(cls, text: str) -> FrameId:
        """Read the form that ``str`` writes. Raise ValueError if it is not one."""
        if not _FRAME.fullmatch(text):
            raise ValueError(f"frame id {text!r}: expected camera/epoch/seq")
        camera, epoch, seq = text.rsplit("/", 2)
        return cls(camera, int(epoch), int(seq))


def next_epoch(last: int | None, unix_time_s: int) -> int:
    """Return the epoch of a capture that starts now: the larger of the last one plus one and the Unix time.

    The Unix time lets a camera that moves to an agent without its history go on upwards.
    """
    return unix_time_s if last is None else max(last + 1, unix_time_s)


def replay_lane(run: str) -> str:
    """Return the lane of one replay of dead letters. Raise ValueError if the run's name is not usable."""
    if not _RUN.fullmatch(run):
        raise ValueError(f"replay run {run!r}: expected lower-case letters, digits and dashes, 41 at most")
    return _REPLAY + run


def is_replay(lane: str) -> bool:
    """Tell whether a lane belongs to a replay of dead letters."""
    return _REPLAY_LANE.fullmatch(lane) is not None


def is_late(lane: str) -> bool:
    """Tell whether what travels on a lane is older than live, so that its events must say so."""
    return lane != LIVE
