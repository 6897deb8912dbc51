"""Tracks which frames of a stream are damaged because packets were lost.

Each frame is predicted from the previous frame, so damage stays in the picture until a complete key frame arrives.
The decoders of FFmpeg 8 do not report all damaged frames. FFmpeg's H.264 decoder flags a frame that lacks a part, but
not the frames that are predicted from this frame; its H.265 decoder flags no frame. If all packets of a frame are
lost, neither FFmpeg's H.264 decoder nor its H.265 decoder reports the loss. FFmpeg counts RTP packets and reports
missing packets only in its log (rtpdec.c), so this module reads the log.

A stream with gradual refresh has only one key frame, the first. After a packet loss in a stream with gradual refresh,
no frame counts as intact, and the capture restarts after the stall time. A decoder that has just started may flag
frames before the first intact frame, and these flags do not count as damage.
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
"""Codec whose decoder flags a frame if the end of the frame is missing."""


class Damage:
    """Packet losses of one stream, and the damage that they cause."""

    def __init__(self) -> None:
        self._loss_logged = self._damaged = self._has_intact_frame = False
        self._until_pts: int | None = None
        """Presentation time of the last packet loss. A key frame at or before the presentation time of a packet loss
        may also be damaged."""
        self._opening_s = 0.0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Read FFmpeg's log and detect lost packets.

        FFmpeg has one log for the whole process, so only one stream at a time may use this context.
        """
        av.logging.set_skip_repeated(False)
        av.logging.set_level(av.logging.WARNING)
        try:
            with av.logging.Capture(local=False) as log:
                yield
        finally:
            av.logging.set_level(None)
            self._loss_logged = self._loss_logged or any(text.startswith(_LOST) for _, _, text in log)

    def opened(self, took_s: float) -> None:
        """Mark the stream as damaged if packets were lost while the stream was opened, which took ``took_s`` seconds.

        Packets that were lost during the opening may have damaged the first frames.
        """
        if self._loss_logged:
            self._loss_logged, self._damaged, self._opening_s = False, True, took_s

    def note(self, packet: Packet[VideoStream]) -> None:
        """Mark frames as damaged if FFmpeg logged a loss while this packet was read inside ``listening``."""
        if packet.pts is not None and packet.time_base and self._opening_s:
            self._damage_until(packet.pts + round(self._opening_s / packet.time_base))
            self._opening_s = 0.0
        if self._loss_logged:
            self._loss_logged = False
            self._damage_until(packet.pts)

    def cut_off(self, packet: Packet[VideoStream]) -> None:
        """Mark frames as damaged if FFmpeg returned ``packet`` because of a timeout, and the decoder of this codec
        does not flag incomplete frames.
        """
        if packet.stream.codec_context.name != _FLAGGED:
            self._damage_until(packet.pts)

    def undecodable(self, packet: Packet[VideoStream]) -> None:
        """Mark frames as damaged, because this packet cannot be decoded. Do nothing before the first intact frame."""
        if self._has_intact_frame:
            self._damage_until(packet.pts)

    def is_damaged(self, frame: VideoFrame) -> bool:
        """Return whether a frame is or may be damaged. Call this method for the frames in display order."""
        if frame.is_corrupt and (self._has_intact_frame or frame.key_frame):
            self._damage_until(frame.pts)
        elif frame.key_frame and not self._opening_s and self._is_later(frame.pts):
            self._damaged = False
        damaged = self._damaged or frame.is_corrupt
        self._has_intact_frame = self._has_intact_frame or not damaged
        return damaged

    def _damage_until(self, pts: int | None) -> None:
        known = [known for known in (self._until_pts, pts) if known is not None]
        self._damaged, self._until_pts = True, max(known, default=None)

    def _is_later(self, pts: int | None) -> bool:
        return self._until_pts is None or (pts is not None and pts > self._until_pts)
