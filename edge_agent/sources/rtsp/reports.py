"""What a stream's sender reports say of the time of its frames."""

from __future__ import annotations

import struct

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_REFERENCE = struct.Struct("<q")
"""AVProducerReferenceTime begins with the Unix time in µs."""


class SenderReports:
    """Maps presentation times to the camera's clock, by the newest report.

    FFmpeg puts the moment that a sender report gives to a packet beside it (AV_PKT_DATA_PRFT); frames come out in
    another order than packets go in, so it is carried over by the difference of their presentation times. The very
    first one is of no use: it came while a frame was being put together, and lies beside the frame before its own.
    """

    def __init__(self) -> None:
        self._begun = False
        self._anchor: tuple[int, int] | None = None
        """Presentation time in units of the stream, and Unix time in ns."""

    def note(self, packet: Packet[VideoStream]) -> None:
        """Take what comes with a packet."""
        if packet.pts is None or not packet.has_sidedata("prft"):
            return
        if self._begun:
            (wall_us,) = _REFERENCE.unpack_from(bytes(packet.get_sidedata("prft")))
            self._anchor = packet.pts, wall_us * 1000
        self._begun = True

    def time_ns(self, frame: VideoFrame) -> int | None:
        """Return a frame's time by the camera's clock in Unix ns, None while no report has come."""
        if self._anchor is None or frame.pts is None or frame.time_base is None:
            return None
        return self._anchor[1] + round((frame.pts - self._anchor[0]) * frame.time_base * 10**9)
