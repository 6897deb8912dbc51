"""Decides which frames belong to a clip, and finds the gaps of the clip. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ingest.contract.records import Alert, Clip, ClipGap, Frame
from ingest.contract.records.evidence import MAX_GAPS

GAP_NS = 1_500_000_000
"""Time without a frame that counts as a gap, in ns. Few cameras send less than one frame per second."""
SETTLE_S = 5.0
"""Time in seconds after the last moment of a clip until the clip is made. The last frames of a clip reach the log
within ``SETTLE_S``, unless the agent's link is down."""
MAX_NS = 2**63 - 1
"""Latest Unix time in ns that a record can hold. The clock of a camera may be wrong."""
NOT_IN_LOG = "no frame in the log"


class ClipWindow:
    """The interval of a clip, and the facts about its frames. Pass the frames of one camera to ``takes`` or
    ``reject``, in the log's order.

    A frame belongs to the clip if it was captured in the interval, and later than the previous frame of the clip.
    Frames that were sent twice, or replayed, are therefore left out of the clip.
    """

    def __init__(self, from_ns: int, to_ns: int) -> None:
        self.from_ns, self.to_ns = max(0, from_ns), min(max(0, to_ns), MAX_NS)
        self.passed = False
        """Whether a frame captured after the clip's interval was seen, so that no later record belongs to the clip.
        """
        self._first_ns = self._last_ns = 0
        self._frames = self._unreadable = 0
        self._gaps: list[ClipGap] = []

    @classmethod
    def of(cls, alert: Alert) -> ClipWindow:
        """Return the window of the clip that an alert requests. The alert must request a clip."""
        clip, at_ns = alert.data.clip, alert.data.captured_ns
        if clip is None:
            raise ValueError(f"alert {alert.id} requests no clip")
        return cls(at_ns - round(clip.before_s * 1e9), at_ns + round(clip.after_s * 1e9))

    def takes(self, frame: Frame) -> bool:
        """Return whether a frame belongs to the clip, and note the gap before the frame."""
        if frame.captured_ns < self.from_ns or frame.captured_ns <= self._last_ns or self.passed:
            return False
        reason = _withheld(frame.account.counts if frame.account else {})
        if frame.captured_ns > self.to_ns:
            self.passed = True
            self._gap(self.to_ns, reason)
            return False
        self._gap(frame.captured_ns, reason)
        self._first_ns = self._first_ns or frame.captured_ns
        self._last_ns = frame.captured_ns
        self._frames += 1
        return True

    def reject(self) -> None:
        """Count a frame whose picture cannot be read."""
        self._unreadable += 1

    def facts(self, expired: bool = False, missing: str = "", rest: str = NOT_IN_LOG) -> Clip:
        """Return the facts after the last frame.

        ``expired`` says that the log has deleted the frames at the beginning of the interval. ``missing`` is the
        reason why there is no clip. ``rest`` is the reason why the log has no frame between the clip's last frame and
        the end of the interval.
        """
        if not self.passed:
            self._gap(self.to_ns, rest)
        gaps = self._gaps
        if expired and gaps and gaps[0].from_ns == self.from_ns:
            reason = "the log has deleted the frames"
            gaps = [gaps[0].model_copy(update={"reason": reason}), *gaps[1:]]
        return Clip(
            from_ns=self.from_ns,
            to_ns=self.to_ns,
            first_ns=self._first_ns,
            last_ns=self._last_ns,
            frames=self._frames,
            unreadable=self._unreadable,
            gaps=tuple(gaps[:MAX_GAPS]),
            missing=missing,
        )

    def _gap(self, to_ns: int, reason: str) -> None:
        from_ns = self._last_ns or self.from_ns
        if to_ns - from_ns > GAP_NS:
            self._gaps.append(ClipGap(from_ns=from_ns, to_ns=to_ns, reason=reason))


def _withheld(counts: Mapping[str, int]) -> str:
    """Return the reason for a gap before a frame: how many frames the agent withheld there, and why."""
    if not counts:
        return NOT_IN_LOG
    return "withheld by the agent: " + ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
