"""Encode pictures as an H.264 MP4 in memory, in which each picture has its true capture time."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import cv2
from av.video.reformatter import Colorspace

from ingest.contract.records import Pixels

MEDIA_TYPE = "video/mp4"
MAX_SIDE = 1920
"""Maximum width and height of a clip in pixels. Larger pictures are scaled down, because the browsers of phones
decode videos only up to 1080p."""
MAX_BYTES = 64 * 1024 * 1024
"""Maximum size of a clip in bytes, which limits the memory of the encoder. Two minutes of video at the maximum bit
rate have about ``MAX_BYTES``."""
_TIME_BASE = Fraction(1, 1000)
_KEY_FRAME_EVERY = 50
"""Number of frames from one key frame to the next. A player can jump only to a key frame: at 10 frames/s, every five
seconds."""
_OPTIONS = {
    "preset": "veryfast",
    "crf": "26",
    "maxrate": "4M",
    "bufsize": "8M",
    "bf": "0",
    "threads": "1",  # the worker encodes several clips side by side
    "x264-params": "mbtree=0",
}
"""Options of the encoder. The same frames must give the same bytes, so that a clip that is made again has the hash of
its record. With more than one thread, or with ``mbtree``, the bytes differ now and then. ``mbtree`` also moves bits
from moving objects to the background. Without it, ``crf`` 26 makes files of the size that 23 makes with it."""
_BT709 = 1


class ClipEncoder:
    """Encodes BGR pictures of any size, with their capture times as time stamps (variable frame rate).

    The clip has the size of the first picture, rounded down to even numbers. The index is at the beginning of the
    file, so that a browser plays the clip before the whole file is loaded.
    """

    def __init__(self) -> None:
        self._file = io.BytesIO()
        self._container = av.open(
            self._file,
            "w",
            format="mp4",
            options={"movflags": "+faststart"},
            io_open=lambda url, flags, options: _SecondReader(self._file),
        )
        self._stream: av.VideoStream | None = None
        self._first_ns = 0
        self._last_ms = -1
        self.frames = 0

    @property
    def full(self) -> bool:
        """Whether the clip has reached its maximum size."""
        return self._file.tell() > MAX_BYTES

    def add(self, image: Pixels, captured_ns: int) -> None:
        """Encode a picture. Skip a picture that was captured less than a millisecond after the previous picture."""
        if self._stream is None:
            self._first_ns = captured_ns
            self._stream = self._open(image.shape[1], image.shape[0])
        at_ms = (captured_ns - self._first_ns) // 1_000_000
        if at_ms <= self._last_ms:
            return
        size = self._stream.width, self._stream.height
        if (image.shape[1], image.shape[0]) != size:
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]  # stays uint8
        frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709
        )
        frame.pts, frame.time_base = at_ms, _TIME_BASE
        self._container.mux(self._stream.encode(frame))
        self._last_ms = at_ms
        self.frames += 1

    def finish(self) -> bytes:
        """Return the clip. Call this method once, after at least one picture."""
        if self._stream is None:
            raise ValueError("a clip without pictures cannot be encoded: add a picture first")
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._file.getvalue()

    def _open(self, width: int, height: int) -> av.VideoStream:
        scale = min(1.0, MAX_SIDE / max(width, height))
        stream = self._container.add_stream("libx264", rate=10, options=_OPTIONS)
        stream.width = max(2, int(width * scale) // 2 * 2)  # 4:2:0 colour needs even sizes
        stream.height = max(2, int(height * scale) // 2 * 2)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.gop_size = _KEY_FRAME_EVERY
        stream.codec_context.colorspace = _BT709
        stream.codec_context.color_primaries = _BT709
        stream.codec_context.color_trc = _BT709
        return stream


class _SecondReader(io.RawIOBase):
    """A reader with its own position on a file in memory. FFmpeg reads the clip's file through this reader when it
    moves the index to the beginning of the file."""

    def __init__(self, file: io.BytesIO) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        before = self._file.tell()
        self._file.seek(self._at)
        data = self._file.read(size)
        self._at = self._file.tell()
        self._file.seek(before)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        before = self._file.tell()
        self._file.seek(self._at)
        self._at = self._file.seek(offset, whence)
        self._file.seek(before)
        return self._at

    def tell(self) -> int:
        return self._at
