"""What files and streams have in common: FFmpeg through PyAV, one thread, bounded, and pixels only when asked for."""

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

LOST = "parts of it were lost on the way"

_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "nv21", "gray"}
"""Formats whose first plane is the brightness, a byte each."""
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
"""By what FFmpeg calls a rotation: anticlockwise, in degrees."""
_CODEC_OPTIONS = {"max_pixels": str(MAX_PIXELS)}


def open_video(
    url: str, options: dict[str, str], *, open_s: float | None = None, read_s: float | None = None
) -> tuple[InputContainer, VideoStream]:
    """Open a file or a stream and its first video. Raise av.FFmpegError or OSError, SourceUnusable without video."""
    container = av.open(url, options=options | _CODEC_OPTIONS, timeout=(open_s, read_s))
    if not container.streams.video or container.streams.video[0].codec_context is None:
        container.close()
        raise SourceUnusable("it has no video that can be decoded")
    video = container.streams.video[0]
    video.codec_context.options = _CODEC_OPTIONS
    video.codec_context.thread_count = 1  # a camera is one core's work at the most, and there are many of them
    return container, video


def why(error: Exception) -> str:
    """Return what FFmpeg says, without its number and without the address."""
    return getattr(error, "strerror", None) or str(error)


class Decoder:
    """Makes pictures of one stream's frames, when they are asked for."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # keeps its tables: half of what a conversion costs otherwise

    def image(self, frame: VideoFrame) -> Callable[[], Image]:
        """Return what makes a frame's picture, turned as the stream says. It raises FrameUnusable."""

        def make() -> Image:
            if frame.is_corrupt:
                raise FrameUnusable(LOST)
            try:
                bgr = self._reformatter.reformat(frame, format="bgr24", threads=1).to_ndarray()
            except (av.FFmpegError, ValueError, MemoryError) as error:
                raise FrameUnusable(f"it cannot be made into a picture: {why(error)}") from None
            turn = _TURNS.get(frame.rotation % 360)
            return np.asarray(bgr if turn is None else cv2.rotate(bgr, turn), np.uint8)

        return make

    def luma(self, frame: VideoFrame) -> Callable[[], Grey] | None:
        """Return what shows a frame's brightness, without a copy; None if its format has no such plane."""
        if frame.format.name not in _PLANAR or frame.rotation % 360:
            return None

        def view() -> Grey:
            plane = frame.planes[0]
            rows: Grey = np.frombuffer(memoryview(plane), np.uint8, count=plane.line_size * frame.height)
            return rows.reshape(frame.height, plane.line_size)[:, : frame.width]

        return view
