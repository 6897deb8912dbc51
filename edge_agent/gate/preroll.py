"""Buffer of the frames just before motion begins. Pure.

Decisions leave the gate in the order of the frame numbers. So every frame that follows a buffered one is buffered
behind it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from edge_agent.gate.decision import GateDecision

MAX_PICTURES = 12
"""Maximum number of buffered pictures. They are sent in one burst, and the queue to the agent has room for 16."""
MAX_BYTES = 32 * 1024 * 1024
"""Maximum size of the buffered pictures: five of 1920×1080, or 46 of 640×360. They stay uncompressed, because
compressing every withheld frame would cost more than motion detection."""
_MAX_FRAMES = 1000
"""Maximum number of buffered frames. It applies when the clock is set back, because frames then do not expire."""


class PreRollBuffer:
    """First-in, first-out queue of preliminary decisions. A frame stays for at most ``wait_s``."""

    def __init__(self, wait_s: float) -> None:
        self._wait_ns = round(wait_s * 1e9)
        self._decisions: deque[GateDecision] = deque()
        self._bytes = self._pictures = 0

    def add(self, decision: GateDecision) -> None:
        """Append a decision."""
        self._decisions.append(decision)
        self._count(decision, 1)

    def expired(self, now_ns: int) -> Iterator[GateDecision]:
        """Remove and yield, oldest first, decisions that have waited long enough or exceed a limit."""
        while self._decisions and (self._is_too_full() or self._is_first_due(now_ns)):
            yield self._pop()

    def drain(self) -> Iterator[GateDecision]:
        """Remove and yield all decisions, oldest first."""
        while self._decisions:
            yield self._pop()

    def _is_first_due(self, now_ns: int) -> bool:
        first = self._decisions[0].frame
        return first.image is None or not 0 <= now_ns - first.captured_ns < self._wait_ns

    def _is_too_full(self) -> bool:
        return self._pictures > MAX_PICTURES or self._bytes > MAX_BYTES or len(self._decisions) > _MAX_FRAMES

    def _pop(self) -> GateDecision:
        decision = self._decisions.popleft()
        self._count(decision, -1)
        return decision

    def _count(self, decision: GateDecision, sign: int) -> None:
        if decision.frame.image is not None:
            self._bytes += sign * decision.frame.image.nbytes
            self._pictures += sign
