"""Frames that wait to see whether something is about to move. Pure.

Fates are given in the order of the numbers, so whatever comes after a frame that waits stands in line behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from edge_agent.gate.shot import Shot
from ingest.contract.records import Box

MAX_PICTURES = 12
"""They go out in one burst, and the queue to the agent has room for 16."""
MAX_BYTES = 32 * 1024 * 1024
"""Pixels are held as they are: to compress each frame that is withheld would cost more than to look at it. This is
five pictures of 1920×1080, and 46 of 640×360."""
_MAX_LENGTH = 1000
"""Should a clock be set back, nothing gets old: then the line is cut here."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A frame in line and why it will be withheld. ``shot`` has its picture if it may yet be sent."""

    shot: Shot
    reason: str
    motion: tuple[Box, ...] | None = None
    resting: tuple[Box, ...] | None = None
    sampled: bool = False

    @property
    def bytes(self) -> int:
        """What its picture takes."""
        return 0 if self.shot.image is None else self.shot.image.nbytes


class Line:
    """First in, first out. ``wait_s`` is how long a frame waits at most."""

    def __init__(self, wait_s: float) -> None:
        self._wait_ns = round(wait_s * 1e9)
        self._frames: deque[Waiting] = deque()
        self._bytes = self._pictures = 0

    def add(self, frame: Waiting) -> None:
        """Put a frame at the end."""
        self._frames.append(frame)
        self._count(frame, 1)

    def leaving(self, now_ns: int) -> Iterator[Waiting]:
        """Take out, oldest first, what has waited long enough, and what there is no room for."""
        while self._frames and (self._is_over() or self._has_nothing_to_wait_for(now_ns)):
            yield self._pop()

    def all(self) -> Iterator[Waiting]:
        """Take out everything, oldest first."""
        while self._frames:
            yield self._pop()

    def _has_nothing_to_wait_for(self, now_ns: int) -> bool:
        first = self._frames[0].shot
        return first.image is None or not 0 <= now_ns - first.captured_ns < self._wait_ns

    def _is_over(self) -> bool:
        return self._pictures > MAX_PICTURES or self._bytes > MAX_BYTES or len(self._frames) > _MAX_LENGTH

    def _pop(self) -> Waiting:
        frame = self._frames.popleft()
        self._count(frame, -1)
        return frame

    def _count(self, frame: Waiting, by: int) -> None:
        self._bytes += by * frame.bytes
        self._pictures += by * (frame.shot.image is not None)
