"""Which pictures of a stream show what was lost on its way.

A picture is made from the one before it: what a lost packet spoils stays spoilt until a key frame has come whole.
FFmpeg 8's decoders tell less than that. Of H.264 they flag the picture that a part is missing from and none of those
after it, of H.265 not even that one, and a picture of which every packet is lost leaves no flag at all. The packets
themselves are counted, and what is given up waiting for is said in FFmpeg's log and nowhere else (rtpdec.c), so the
log is heard.

A stream that is renewed bit by bit has no key frame but its first: there, the camera is tried again when no whole
frame has come for the time of a stall. What a decoder flags before it has given one whole frame is its own start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av.logging
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

_LOST = "RTP: missed"
_FLAGGED = "h264"
"""The codec of which the decoder says that a picture's end is missing."""


class Damage:
    """What is known of one stream's losses."""

    def __init__(self) -> None:
        self._heard = self._spoilt = self._begun = False
        self._until_pts: int | None = None
        """A key frame that is not later than this is from before the loss, or hit by it."""
        self._opening_s = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear what is lost meanwhile. FFmpeg has one log for a process: one stream is listened to at a time."""
        av.logging.set_skip_repeated(False)
        av.logging.set_level(av.logging.WARNING)
        try:
            with av.logging.Capture(local=False) as said:
                yield
        finally:
            av.logging.set_level(None)
            self._heard = self._heard or any(text.startswith(_LOST) for _, _, text in said)

    def opened(self, took_s: float) -> None:
        """Take note that the stream was opened: which of its first frames a loss meanwhile has hit is not known."""
        if self._heard:
            self._heard, self._spoilt, self._opening_s = False, True, took_s

    def note(self, packet: Packet[VideoStream]) -> None:
        """Take note of the packet that came while it was listened."""
        if packet.pts is not None and packet.time_base and self._opening_s:
            self._spoil(packet.pts + round(self._opening_s / packet.time_base))
            self._opening_s = 0.0
        if self._heard:
            self._heard = False
            self._spoil(packet.pts)

    def cut_off(self, packet: Packet[VideoStream]) -> None:
        """Take note of a packet that came because nothing more did: nobody knows whether that is all of it."""
        if packet.stream.codec_context.name != _FLAGGED:
            self._spoil(packet.pts)

    def undecodable(self, packet: Packet[VideoStream]) -> None:
        """Take note that nothing could be made of a packet."""
        if self._begun:
            self._spoil(packet.pts)

    def shows(self, frame: VideoFrame) -> bool:
        """Tell whether a frame, in the order in which they are shown, has or may have damage in it."""
        if frame.is_corrupt and (self._begun or frame.key_frame):
            self._spoil(frame.pts)
        elif frame.key_frame and not self._opening_s and self._later(frame.pts):
            self._spoilt = False
        damaged = self._spoilt or frame.is_corrupt
        self._begun = self._begun or not damaged
        return damaged

    def _spoil(self, pts: int | None) -> None:
        known = [known for known in (self._until_pts, pts) if known is not None]
        self._spoilt, self._until_pts = True, max(known, default=None)

    def _later(self, pts: int | None) -> bool:
        return self._until_pts is None or (pts is not None and pts > self._until_pts)
