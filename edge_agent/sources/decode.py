"""Video decoding for files and streams with FFmpeg, through PyAV.

Decoding uses one thread, limits the picture size, and converts a frame to pixels only on demand.
"""

from __future__ import annotations

from collections.abc import Callable

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from edge_agent.exceptions import FrameUnusable, SourceUnusable
from edge_agent.sources.limits import MAX_PIXELS
from edge_agent.sources.source import Grey, Image

LOST = "packets of this frame were lost"

_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "nv21", "gray"}
"""Pixel formats whose first plane is the luma, one byte for each pixel."""
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
"""OpenCV's rotation code for each rotation of FFmpeg (anticlockwise, in degrees)."""
_CODEC_OPTIONS = {"max_pixels": str(MAX_PIXELS)}


def open_video(
    url: str, options: dict[str, str], *, open_s: float | None = None, read_s: float | None = None
) -> tuple[InputContainer, VideoStream]:
    """Open a file or URL and its first video stream.

    Raise FFmpegError, OSError, or SourceUnusable without a video stream.
    """
    container = av.open(url, options=options | _CODEC_OPTIONS, timeout=(open_s, read_s))
    if not container.streams.video or container.streams.video[0].codec_context is None:
        container.close()
        raise SourceUnusable("expected a video stream that FFmpeg can decode, found none")
    video = container.streams.video[0]
    video.codec_context.options = _CODEC_OPTIONS
    video.codec_context.thread_count = 1  # one camera needs at most one core, and a host has many cameras
    return container, video


def why(error: Exception) -> str:
    """Return FFmpeg's error message without the error number and without the address."""
    return getattr(error, "strerror", None) or str(error)


class Decoder:
    """Converter from one stream's decoded frames to pictures, on demand."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # building its tables takes half the time of a conversion

    def image(self, frame: VideoFrame) -> Callable[[], Image]:
        """Return a function that makes a frame's picture in the stream's rotation.

        The function raises FrameUnusable.
        """

        def make() -> Image:
            if frame.is_corrupt:
                raise FrameUnusable(LOST)
            try:
                bgr = self._reformatter.reformat(frame, format="bgr24", threads=1).to_ndarray()
            except (av.FFmpegError, ValueError, MemoryError) as error:
                raise FrameUnusable(f"the frame cannot be converted to a picture: {why(error)}") from None
            turn = _TURNS.get(frame.rotation % 360)
            return np.asarray(bgr if turn is None else cv2.rotate(bgr, turn), np.uint8)

        return make

    def luma(self, frame: VideoFrame) -> Callable[[], Grey] | None:
        """Return a function that returns a frame's luma without a copy; None if the format has no luma plane."""
        if frame.format.name not in _PLANAR or frame.rotation % 360:
            return None

        def view() -> Grey:
            plane = frame.planes[0]
            rows: Grey = np.frombuffer(memoryview(plane), np.uint8, count=plane.line_size * frame.height)
            return rows.reshape(frame.height, plane.line_size)[:, : frame.width]

        return view
