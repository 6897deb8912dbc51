"""Frames from encoded pictures, such as snapshots, MJPEG streams and image files.

Formats are JPEG, PNG and other formats of OpenCV.

JPEG is decoded by FFmpeg, because OpenCV does not report missing data in the middle of a JPEG.
"""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from edge_agent.exceptions import FrameUnusable
from edge_agent.sources.decode import DAMAGE_IS_ERROR, Decoder, why
from edge_agent.sources.jpeg import JPEG_START, JpegScan
from edge_agent.sources.limits import MAX_PIXELS
from edge_agent.sources.source import CapturedFrame, Grey, Image

MAX_PICTURE_BYTES = 64 * 1024 * 1024
"""Maximum size of an encoded picture in bytes. An 8K PNG of a noisy picture is about as large as
``MAX_PICTURE_BYTES``."""
_EXIF, _EXIF_WITHIN_BYTES = b"Exif\0\0", 4096


class PictureDecoder:
    """Decoder of the pictures of one source. Each picture is decoded only on demand."""

    def __init__(self) -> None:
        self._decoder = Decoder()

    def captured(self, data: bytes, captured_ns: int) -> CapturedFrame:
        """Return a frame whose picture is still encoded and is decoded on demand.

        The frame's ``image`` raises FrameUnusable for a truncated or damaged picture.
        """
        if data.startswith(JPEG_START):
            jpeg = _JpegPicture(data, self._decoder)
            return CapturedFrame(jpeg.image, captured_ns, luma=jpeg.luma)
        return CapturedFrame(
            lambda: _decoded(data, cv2.IMREAD_COLOR),
            captured_ns,
            luma=lambda: _decoded(data, cv2.IMREAD_REDUCED_GRAYSCALE_2),
        )


class _JpegPicture:
    """JPEG that is decoded only once, for both the grey picture (luma) and the colour picture."""

    def __init__(self, data: bytes, decoder: Decoder) -> None:
        self._data, self._decoder = data, decoder
        self._frame: VideoFrame | None = None
        self._has_exif = _EXIF in data[:_EXIF_WITHIN_BYTES]

    def image(self) -> Image:
        frame = self._decode()
        # PyAV does not read the side data of pictures with EXIF; OpenCV applies the orientation in it
        return _decoded(self._data, cv2.IMREAD_COLOR) if self._has_exif else self._decoder.image(frame)()

    def luma(self) -> Grey:
        frame = self._decode()
        view = None if self._has_exif else self._decoder.luma(frame)
        return view() if view else np.asarray(cv2.cvtColor(self.image(), cv2.COLOR_BGR2GRAY), np.uint8)

    def _decode(self) -> VideoFrame:
        """Decode a JPEG with a new FFmpeg codec context.

        A reused context would read a picture that is smaller than the previous picture as one field of an interlaced
        picture.
        """
        if self._frame is None:
            size, end = len(self._data), JpegScan().end(self._data)
            if end is None:
                raise FrameUnusable(f"the JPEG picture of {size} bytes is truncated")
            context = VideoCodecContext.create("mjpeg", "r")
            context.options, context.thread_count = DAMAGE_IS_ERROR | {"max_pixels": str(MAX_PIXELS)}, 1
            try:
                (self._frame,) = context.decode(av.Packet(self._data[:end]))
            except (av.FFmpegError, MemoryError, ValueError) as error:
                raise FrameUnusable(f"the JPEG picture of {size} bytes is damaged: {why(error)}") from None
        return self._frame


def _decoded(data: bytes, how: int) -> Image | Grey:
    try:
        # the agent sets OPENCV_IO_MAX_IMAGE_PIXELS for its children, which limits the size that a header may claim
        image = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error as error:
        raise FrameUnusable(f"a picture of {len(data)} bytes cannot be decoded: {error.err}") from None
    if image is None:
        raise FrameUnusable(f"a file of {len(data)} bytes is not a picture in a known format")
    return np.asarray(image, np.uint8)
