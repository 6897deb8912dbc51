"""Capture times of a stream's frames: by the stream's own clock if it is near the host's, else by the host's.

RTCP sender reports (RFC 3550, 6.4.1) map time stamps of a stream to the camera's clock. That time is free of network
and decoder delay, but has the error of the camera's clock.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_REFERENCE = struct.Struct("<q")
"""Start of AVProducerReferenceTime: the Unix time in µs."""

_FADE = 0.1
"""Maximum change of the rate of time during a switch between clocks, as a share.

A jump would falsify every measured speed, and a jump back would change the order of frames.
"""
_SET_BACK_NS = 1_000_000_000
_STANDS_STILL_NS = 10_000_000_000
"""Frame times go back if the host's clock goes back by more than the first constant, or if they would otherwise stand
still for longer than the second. The rate gate would pass no frame while time stands still."""
_NEAR = 0.8
"""Hysteresis: share of the maximum skew below which a refused clock is used again."""


@dataclass(frozen=True, slots=True)
class FrameTime:
    """A frame's time in Unix ns, the clock that it is from, and its difference from the arrival in ms.

    The difference is the network delay minus the lead of the stream's clock over the host's. It bounds the error
    unless the stream's clock is ahead. None means that the time is the arrival time and the error is unknown.
    """

    captured_ns: int
    source: str
    error_ms: float | None


class SenderReports:
    """Map from presentation times to the camera's clock, by the newest sender report.

    FFmpeg attaches the time of a sender report to a packet (AV_PKT_DATA_PRFT). Frames leave the decoder in another
    order than packets enter it, so frame times follow from the difference of presentation times. The first report is
    ignored: it arrives while a frame is assembled, and is attached to the frame before its own.
    """

    def __init__(self) -> None:
        self._has_first_report = False
        self._anchor: tuple[int, int] | None = None
        """Presentation time in units of the stream, and Unix time in ns."""

    def note(self, packet: Packet[VideoStream]) -> None:
        """Update from the report attached to a packet, if there is one."""
        if packet.pts is None or not packet.has_sidedata("prft"):
            return
        if self._has_first_report:
            (wall_us,) = _REFERENCE.unpack_from(bytes(packet.get_sidedata("prft")))
            self._anchor = packet.pts, wall_us * 1000
        self._has_first_report = True

    def time_ns(self, frame: VideoFrame) -> int | None:
        """Return a frame's time by the camera's clock in Unix ns, or None before the first usable report."""
        if self._anchor is None or frame.pts is None or frame.time_base is None:
            return None
        return self._anchor[1] + round((frame.pts - self._anchor[0]) * frame.time_base * 10**9)


class StreamClock:
    """Frame times of one stream. They increase strictly unless a clock is set back by seconds."""

    def __init__(self, max_skew_s: float) -> None:
        self._max_skew_ns = round(max_skew_s * 1e9)
        self._source = ""
        self._carry_ns = 0
        self._good_skew_ns = 0
        self._last_ns = self._last_arrived_ns = 0
        self.skew_ns: int | None = None
        """Host time minus stream time of the last frame that had both, in ns."""

    @property
    def refused(self) -> bool:
        """Whether the stream has a clock that differs too much from the host's to be used."""
        return self.skew_ns is not None and self._source == "host"

    def stamp(self, arrived_ns: int, stream_ns: int | None) -> FrameTime:
        """Return the time of a frame, given its arrival time and its time by the stream's clock, if known."""
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
        # during a switch, the time is between both clocks: its error is bounded by the farther one
        off_ns = max(abs(arrived_ns - out_ns), abs(raw_ns - out_ns))
        return FrameTime(out_ns, source, off_ns / 1e6 if source == "stream" else None)

    def _near(self) -> bool:
        bound_ns = self._max_skew_ns if self._source != "host" else _NEAR * self._max_skew_ns
        return self.skew_ns is not None and abs(self.skew_ns) <= bound_ns

    def _was_set_back(self, arrived_ns: int, out_ns: int) -> bool:
        return self._last_arrived_ns - arrived_ns > _SET_BACK_NS or self._last_ns - out_ns > _STANDS_STILL_NS

    def _carry(self, source: str, elapsed_ns: int) -> None:
        """Continue from the previous clock without a jump, and reduce the difference gradually."""
        if source != self._source:
            self._carry_ns += self.skew_ns or 0 if source == "stream" else -self._good_skew_ns
        fade_ns = round(_FADE * max(0, elapsed_ns))
        self._carry_ns -= max(-fade_ns, min(fade_ns, self._carry_ns))
