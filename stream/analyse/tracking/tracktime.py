"""The time that tracks live in. Pure."""

from __future__ import annotations

from ingest.contract.records import Result

STILL = frozenset({"still", "masked"})
"""Reasons to withhold a frame that was looked at, and in which nothing moved that may be seen."""
UNSEEN = "rate"
"""Frames between those that are looked at. Beside still ones they were between still ones, since whatever moved in
a frame that was looked at would have been kept; by themselves they are the pace of a scene that moves."""
HELD_STEP_S = 0.2
"""When something moves again after a still gap, it has moved for no longer than from one look to the next."""
SET_BACK_S = 10.0
"""A time that is earlier by more than this comes from a clock that was set back. By less, two clocks may differ in
turn, and what one is behind is waited for: else each return to the other would count again."""
_MIN_STEP_S = 1e-3
"""Two frames never have the same time, whatever the camera's clock does."""


class TrackTime:
    """A camera's time, but that it stands still while nothing moves: tracks hold through it, however long it is.

    All other gaps count in full: frames that were shed, that the schedule or an overload took, that were lost or
    went to another lane may have shown anything.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self.lived_ns = 0
        """Since the epoch's first result, still or not. It never goes back, and goes on when a clock was set back."""
        self._latest_ns: int | None = None
        self._last: tuple[int, int] | None = None

    def advance(self, result: Result) -> float:
        """Return the time of the next result of an epoch, in seconds since its first one."""
        self._now_s += self._step_s(result)
        self._live(result.captured_ns)
        self._last = result.seq, result.captured_ns
        return self._now_s

    def _live(self, at_ns: int) -> None:
        step_ns = 0 if self._latest_ns is None else at_ns - self._latest_ns
        if self._latest_ns is None or step_ns > 0 or step_ns < -SET_BACK_S * 1e9:
            self._latest_ns = at_ns
        self.lived_ns += max(step_ns, 0)

    def _step_s(self, result: Result) -> float:
        if self._last is None:
            return 0.0
        last_seq, last_ns = self._last
        step_s = max((result.captured_ns - last_ns) / 1e9, 0.0)
        looked_on = result.seq - last_seq - 1 <= sum(result.withheld.values())
        still = looked_on and _is_still(result)
        if result.outcome != "classified":
            return 0.0 if still else step_s
        return max(min(step_s, HELD_STEP_S) if still else step_s, _MIN_STEP_S)


def _is_still(result: Result) -> bool:
    """Tell whether nothing moved since the frame before."""
    reasons = {reason for reason, count in result.withheld.items() if count}
    if not reasons <= STILL | {UNSEEN}:
        return False
    return bool(reasons & STILL) or (result.outcome == "empty" and result.reason == "still")
