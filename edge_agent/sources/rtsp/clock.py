"""Capture times of a stream's frames.

The camera's clock gives the time if it is close to the host's clock; otherwise, the host's clock does.

RTCP sender reports (RFC 3550, 6.4.1) map time stamps of a stream to the camera's clock. A time by the camera's clock
contains the error of that clock, but no delay of network or decoder.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_REFERENCE = struct.Struct("<q")
"""First field of FFmpeg's AVProducerReferenceTime: the Unix time in µs."""

_FADE = 0.1
"""Maximum share by which frame times run faster or slower than real time during a gradual switch between the camera's
clock and the host's clock.

Without a gradual switch, a jump of frame times would falsify measured speeds, and a jump back would change the order
of frames.
"""
_SET_BACK_NS = 1_000_000_000
_STANDS_STILL_NS = 10_000_000_000
"""Maximum time in ns for which frame times may stand still. Frame times go back only in two cases: if the host's
clock is set back by more than ``_SET_BACK_NS``, or if frame times would have to stand still for longer than
``_STANDS_STILL_NS``. The time is limited because the gate's rate limit passes no frame while frame times stand
still."""
_NEAR = 0.8
"""A stream clock that was refused is used again once its difference from the host's clock is below this share of the
maximum difference (hysteresis)."""


@dataclass(frozen=True, slots=True)
class FrameTime:
    """Capture time of a frame in Unix ns, the clock that gave the time (``stream`` or ``host``), and the error bound
    in ms.

    ``error_ms`` is the difference between capture time and arrival time. The error of the capture time is at most
    ``error_ms``, unless the stream's clock is ahead of the host's clock. If the capture time is the arrival time, the
    error is unknown and ``error_ms`` is None.
    """

    captured_ns: int
    source: str
    error_ms: float | None


class SenderReports:
    """Map from presentation times to the camera's clock, based on the newest sender report.

    FFmpeg attaches the time of a sender report to a packet (AV_PKT_DATA_PRFT). Because a decoder may reorder frames,
    the time of a frame is computed as the time of the report plus the difference between the presentation times of
    frame and packet. The first sender report is ignored, because FFmpeg attaches this report to the wrong frame, one
    frame too early.
    """

    def __init__(self) -> None:
        self._has_first_report = False
        self._anchor: tuple[int, int] | None = None
        """Presentation time (in the stream's time base) and Unix time (in ns) of the newest sender report."""

    def note(self, packet: Packet[VideoStream]) -> None:
        """Store the sender report that is attached to a packet, if any."""
        if packet.pts is None or not packet.has_sidedata("prft"):
            return
        if self._has_first_report:
            (wall_us,) = _REFERENCE.unpack_from(bytes(packet.get_sidedata("prft")))
            self._anchor = packet.pts, wall_us * 1000
        self._has_first_report = True

    def time_ns(self, frame: VideoFrame) -> int | None:
        """Return a frame's time by the camera's clock in Unix ns, or None before the first usable sender report."""
        if self._anchor is None or frame.pts is None or frame.time_base is None:
            return None
        return self._anchor[1] + round((frame.pts - self._anchor[0]) * frame.time_base * 10**9)


class StreamClock:
    """Clock that computes the capture times of one stream.

    Each capture time is later than the previous one, unless a clock is set back.
    """

    def __init__(self, max_skew_s: float) -> None:
        self._max_skew_ns = round(max_skew_s * 1e9)
        self._source = ""
        self._carry_ns = 0
        self._good_skew_ns = 0
        self._last_ns = self._last_arrived_ns = 0
        self.skew_ns: int | None = None
        """Host time minus stream time of the last frame, in ns; None if the frame has no stream time."""

    @property
    def refused(self) -> bool:
        """Whether the stream's clock is not used because it differs too much from the host's clock."""
        return self.skew_ns is not None and self._source == "host"

    def stamp(self, arrived_ns: int, stream_ns: int | None) -> FrameTime:
        """Return the capture time of a frame, given its arrival time and its stream time, if known."""
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
        # during a switch, the time is between both clocks, and the farther clock bounds its error
        off_ns = max(abs(arrived_ns - out_ns), abs(raw_ns - out_ns))
        return FrameTime(out_ns, source, off_ns / 1e6 if source == "stream" else None)

    def _near(self) -> bool:
        bound_ns = self._max_skew_ns if self._source != "host" else _NEAR * self._max_skew_ns
        return self.skew_ns is not None and abs(self.skew_ns) <= bound_ns

    def _was_set_back(self, arrived_ns: int, out_ns: int) -> bool:
        return self._last_arrived_ns - arrived_ns > _SET_BACK_NS or self._last_ns - out_ns > _STANDS_STILL_NS

    def _carry(self, source: str, elapsed_ns: int) -> None:
        """Update the correction that is added to frame times, so that frame times do not jump after a switch of the
        clock.

        The correction is reduced gradually, by at most the share ``_FADE`` of the elapsed time.
        """
        if source != self._source:
            self._carry_ns += self.skew_ns or 0 if source == "stream" else -self._good_skew_ns
        fade_ns = round(_FADE * max(0, elapsed_ns))
        self._carry_ns -= max(-fade_ns, min(fade_ns, self._carry_ns))
