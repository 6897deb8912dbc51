"""Track time: the time of a camera, excluding the gaps in which nothing moved. Pure."""

from __future__ import annotations

from ingest.contract.records import Result

STILL = frozenset({"still", "masked"})
"""Reasons for which the agent's gate withholds a frame that has no motion, or motion only inside masks."""
UNSEEN = "rate"
"""Reason for which the agent's gate withholds a frame that it did not examine. If the gate withheld some frames
between two sent frames as ``still``, nothing moved in the unexamined frames either. The gate would have sent the
first frame with motion. If all frames between two sent frames are unexamined, something moves and the gate limits the
frame rate."""
HELD_STEP_S = 0.2
"""Maximum step of the track time in seconds between two sent frames if nothing moved between these frames. Motion may
begin one interval of the gate, 0.2 s, before the gate sends the first frame of the motion."""
SET_BACK_S = 10.0
"""A clock counts as set back if a capture time is more than this many seconds before the latest capture time. A step
back by less than ``SET_BACK_S`` may come from results of two alternating clocks. After such a small step back,
``lived_ns`` waits until the latest capture time is reached again; otherwise it would add the difference between two
alternating clocks again and again."""
_MIN_STEP_S = 1e-3
"""Minimum step of the track time (camera time without gaps in which nothing moved) between two classified frames,
because the tracker needs increasing times."""


class TrackTime:
    """A camera's time that stands still while nothing moves.

    Tracks survive a gap of any length without motion, because track time stands still in the gap.

    A gap counts in full if objects may have moved in its frames: frames that were shed, lost, sent on another lane,
    or withheld by schedule or overload.
    """

    def __init__(self) -> None:
        self._now_s = 0.0
        self.lived_ns = 0
        """Time in ns since the first result of the camera's run (epoch), including gaps without motion. ``lived_ns``
        never decreases, even if a clock is set back."""
        self._latest_ns: int | None = None
        self._last: tuple[int, int] | None = None

    def advance(self, result: Result) -> float:
        """Return the track time of the epoch's next result, in seconds since the epoch's first result."""
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
        was_watched = result.seq - last_seq - 1 <= sum(result.withheld.values())
        still = was_watched and _is_still(result)
        if result.outcome != "classified":
            return 0.0 if still else step_s
        return max(min(step_s, HELD_STEP_S) if still else step_s, _MIN_STEP_S)


def _is_still(result: Result) -> bool:
    """Return whether nothing moved since the previous frame."""
    still = result.outcome == "empty" and result.reason == "still"
    if not result.withheld:
        return still
    reasons = {reason for reason, count in result.withheld.items() if count}
    if not reasons <= STILL | {UNSEEN}:
        return False
    return still or bool(reasons & STILL)
