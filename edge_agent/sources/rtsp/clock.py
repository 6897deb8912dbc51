"""When a frame was captured: by the stream's own clock where it has a good one, else by the host's. Pure.

An RTSP stream says in its sender reports (RFC 3550, 6.4.1) which moment of the camera's clock belongs to which time
stamp. That moment is free of what the network and the decoder add, and wrong by as much as the camera's clock is.
"""

from __future__ import annotations

from dataclasses import dataclass

_FADE = 0.1
"""A change from one clock to the other is spread, and hurries or slows the time by a tenth at the most: a jump would
make every speed in the picture wrong, and a jump back the order of frames."""
_SET_BACK_NS = 1_000_000_000
_STANDS_STILL_NS = 10_000_000_000
"""Time goes back where the host's clock does by more than the first, or where it would have to stand still for longer
than the second: a gate that lets so many frames a second through would let none through until then."""
_NEAR = 0.8
"""A stream's clock that was too far off is used again when it is this much nearer than the bound: no to and fro."""


@dataclass(frozen=True, slots=True)
class FrameTime:
    """A frame's time in Unix ns, whose clock it is by, and by how many ms that differs from the arrival.

    The difference is the way through the network less what the stream's clock is ahead of the host's: how far off the
    time may be, as long as that clock is not ahead. None where the time is the arrival's, and nothing is known.
    """

    captured_ns: int
    source: str
    error_ms: float | None


class StreamClock:
    """The times of one stream's frames, strictly growing unless a clock is set back by seconds."""

    def __init__(self, max_skew_s: float) -> None:
        self._max_skew_ns = round(max_skew_s * 1e9)
        self._source = ""
        self._carry_ns = 0
        self._good_skew_ns = 0
        self._last_ns = self._last_arrived_ns = 0
        self.skew_ns: int | None = None
        """Host less stream, of the last frame that had both."""

    @property
    def refused(self) -> bool:
        """Tell whether the stream has a clock that is too far from the host's to be used."""
        return self.skew_ns is not None and self._source == "host"

    def stamp(self, arrived_ns: int, stream_ns: int | None) -> FrameTime:
        """Return the time of a frame that arrived at ``arrived_ns`` and has ``stream_ns`` by its own clock."""
        self.skew_ns = None if stream_ns is None else arrived_ns - stream_ns
        source = "stream" if self._near() else "host"
        raw_ns = stream_ns if stream_ns is not None and source == "stream" else arrived_ns
        if self._source:
            self._carry(source, arrived_ns - self._last_arrived_ns)
        if self.skew_ns is not None and source == "stream":
            self._good_skew_ns = self.skew_ns
        out_ns = raw_ns + self._carry_ns
        if not self._was_set_back(arrived_ns, out_ns):
            out_ns = max(self._last_ns + 1, out_ns)
        self._source, self._last_ns, self._last_arrived_ns = source, out_ns, arrived_ns
        # while one clock gives way to the other, the time is neither's: it may be off by as much as from the farther
        off_ns = max(abs(arrived_ns - out_ns), abs(raw_ns - out_ns))
        return FrameTime(out_ns, source, off_ns / 1e6 if source == "stream" else None)

    def _near(self) -> bool:
        bound_ns = self._max_skew_ns if self._source != "host" else _NEAR * self._max_skew_ns
        return self.skew_ns is not None and abs(self.skew_ns) <= bound_ns

    def _was_set_back(self, arrived_ns: int, out_ns: int) -> bool:
        return self._last_arrived_ns - arrived_ns > _SET_BACK_NS or self._last_ns - out_ns > _STANDS_STILL_NS

    def _carry(self, source: str, elapsed_ns: int) -> None:
        """Go on from the clock before without a jump, and give up what differs bit by bit."""
        if source != self._source:
            self._carry_ns += self.skew_ns or 0 if source == "stream" else -self._good_skew_ns
        fade_ns = round(_FADE * max(0, elapsed_ns))
        self._carry_ns -= max(-fade_ns, min(fade_ns, self._carry_ns))
