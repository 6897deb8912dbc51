"""Video decoding for files and streams with FFmpeg, through PyAV.

The decoder uses one thread, limits the picture size, and converts a frame to pixels only on demand.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from edge_agent.exceptions import FrameUnusable, SourceUnusable
from edge_agent.sources.limits import MAX_PIXELS
from edge_agent.sources.source import Grey, Image

if TYPE_CHECKING:
    from typing_extensions import Buffer

LOST = "packets of this frame were lost"

_PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12", "nv21", "gray"}
"""Pixel formats whose first plane is the luma (grey picture), with one byte for each pixel."""
_MATRIX = struct.Struct("9i")
"""Binary format of FFmpeg's display matrix (libavutil/display.h). The first five numbers of the matrix are a, b, u, c
and d. The matrix moves a pixel from (x, y) to (ax + cy, bx + dy).
"""
DAMAGE_IS_ERROR = {"err_detect": "explode"}
"""Option of FFmpeg's JPEG decoder: raise an error for damaged data instead of returning a partly wrong picture. In a
test with JPEGs that lacked 300 to 4,000 bytes, the option detected all of 1,440 damaged baseline JPEGs and 90 % of
the damaged progressive JPEGs."""
_CODEC_OPTIONS = {"max_pixels": str(MAX_PIXELS)}


def open_video(
    url: str, options: dict[str, str], *, open_s: float | None = None, read_s: float | None = None
) -> tuple[InputContainer, VideoStream]:
    """Open a file or URL, and its first video stream that is not a cover picture.

    Raise FFmpegError or OSError if opening fails, or SourceUnusable if there is no video stream.
    """
    container = av.open(url, options=options | _CODEC_OPTIONS, timeout=(open_s, read_s))
    videos = [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]
    if not videos or videos[0].codec_context is None:
        container.close()
        raise SourceUnusable("expected a video stream that FFmpeg can decode, found none")
    video = videos[0]
    is_jpeg = video.codec_context.name == "mjpeg"
    video.codec_context.options = _CODEC_OPTIONS | DAMAGE_IS_ERROR if is_jpeg else _CODEC_OPTIONS
    video.codec_context.thread_count = 1  # one camera needs at most one core, and a host has many cameras
    return container, video


def why(error: Exception) -> str:
    """Return the text of an FFmpeg error without the error number and the address."""
    return getattr(error, "strerror", None) or str(error)


class Decoder:
    """Converts the decoded frames of one stream to pictures. Each frame is converted only on demand."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()  # building its tables takes half the time of a conversion

    def image(self, frame: VideoFrame) -> Callable[[], Image]:
        """Return a function that converts a frame to a picture in the orientation that the stream specifies.

        The returned function raises FrameUnusable if the frame is damaged or cannot be converted.
        """

        def make() -> Image:
            if frame.is_corrupt:
                raise FrameUnusable(LOST)
            try:
                bgr = self._reformatter.reformat(frame, format="bgr24", threads=1).to_ndarray()
            except (av.FFmpegError, ValueError, MemoryError) as error:
                raise FrameUnusable(f"the frame cannot be converted to a picture: {why(error)}") from None
            return _oriented(np.asarray(bgr, np.uint8), _matrix(frame))

        return make

    def luma(self, frame: VideoFrame) -> Callable[[], Grey] | None:
        """Return a function that returns a frame's luma (grey picture) without a copy. If the frame has no luma plane
        that can be used directly, return None instead of a function.
        """
        if frame.format.name not in _PLANAR or _matrix(frame):
            return None

        def view() -> Grey:
            plane = frame.planes[0]
            rows: Grey = np.frombuffer(memoryview(plane), np.uint8, count=plane.line_size * frame.height)
            return rows.reshape(frame.height, plane.line_size)[:, : frame.width]

        return view


def _matrix(frame: VideoFrame) -> tuple[int, ...]:
    """Return the display matrix of a frame, or an empty tuple if the frame needs no rotation."""
    try:
        data = cast("Buffer | None", frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:  # PyAV 18 refuses all side data of a JPEG with EXIF
        return ()
    matrix = _MATRIX.unpack(memoryview(data)) if data else ()
    return () if matrix and matrix[0] > 0 and matrix[4] > 0 else matrix


def _oriented(image: Image, matrix: tuple[int, ...]) -> Image:
    """Return a picture rotated and mirrored by a display matrix; angles are rounded to quarter turns."""
    if not matrix:
        return image
    a, b, _, c, d = matrix[:5]
    if abs(b) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
