"""Parser for MJPEG: an endless multipart response with one picture in each part. Pure.

Because some cameras send wrong headers, the parser trusts the following, in this order:

1. the markers of a JPEG, which show the end of the picture as soon as the end is received;
2. the boundary line before the first part, even if the Content-Type names another boundary;
3. the Content-Length of a part, for pictures in other formats.
"""

from __future__ import annotations

import re

from edge_agent.sources.jpeg import JPEG_START, JpegScan

_MAX_HEADER_BYTES = 16 * 1024
_BOUNDARY = re.compile(r"""boundary\s*=\s*("[^"]*"|[^;\s]+)""", re.IGNORECASE)
_LENGTH = re.compile(rb"^content-length[ \t]*:\s*(\d+)\s*$", re.IGNORECASE | re.MULTILINE)
_BODY = re.compile(rb"\r?\n\r?\n|(?=" + re.escape(JPEG_START) + rb")")
"""Pattern of the position where a part's body begins: after an empty line, or at the start of a JPEG if the camera
sends no empty line."""
_SPACE = b"\r\n \t"


def boundary_of(content_type: str) -> bytes:
    """Return the boundary in a Content-Type header, without leading dashes; empty if the header has no boundary."""
    found = _BOUNDARY.search(content_type)
    return found[1].strip('"').lstrip("-").encode("latin-1", "replace") if found else b""


class Multipart:
    """Incremental parser that extracts pictures from received bytes.

    Raise ValueError for a picture larger than ``max_bytes``.

    The first line that begins with dashes, or that equals ``boundary``, is the boundary of all parts. If a JPEG
    arrives before any boundary line, the parser expects no boundaries between pictures.
    """

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        named = rb"-*" + re.escape(boundary) + rb"|" if boundary else b""
        self._first = re.compile(rb"^(" + named + rb"--[^\r\n]+)\r?\n|(?=" + re.escape(JPEG_START) + rb")", re.M)
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._boundary: re.Pattern[bytes] | None = None
        self._overlap_bytes = 0
        """Length of the boundary line in bytes. The buffer may end with an incomplete boundary line, which has at
        most this many bytes."""
        self._length: int | None = None
        self._inside = False
        self._jpeg: JpegScan | None = None
        self._searched = 0
        """Number of bytes at the start of the body that were searched and contain no boundary."""

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes. Return the pictures that the added bytes complete."""
        self._buffer += data
        found = []
        while (body := self._body() if self._inside else self._headers()) is not None:  # None: more bytes are needed
            if body:
                found.append(body)
        if len(self._buffer) > self._max_bytes + _MAX_HEADER_BYTES:
            raise ValueError(
                f"the MJPEG stream has a picture without an end: expected at most {self._max_bytes} bytes"
            )
        return found

    def _headers(self) -> bytes | None:
        """Skip headers up to the next body.

        Return empty bytes when the headers have ended, or None if the buffer has no complete headers yet.
        """
        start = (self._boundary or self._first).search(self._buffer)
        if start is None:
            if self._boundary:  # a trailer of the last picture, or a thumbnail behind it
                del self._buffer[: -self._overlap_bytes]
            _require_short(len(self._buffer))
            return None
        end = _BODY.search(self._buffer, start.start())
        if end is None:
            _require_short(len(self._buffer) - start.start())
            return None
        if self._boundary is None and start[1]:
            self._boundary = re.compile(re.escape(start[1]) + rb"(?:--|\r?\n)")
            self._overlap_bytes = len(start[1]) + 2
        length = _LENGTH.search(self._buffer, start.start(), end.end())
        self._length = int(length[1]) if length else None
        del self._buffer[: end.end()]
        self._inside, self._jpeg, self._searched = True, None, 0
        return b""

    def _body(self) -> bytes | None:
        """Return the picture of the current part, or None if the picture is not complete yet."""
        if self._jpeg is None and not self._searched:
            begin = self._buffer.lstrip(_SPACE)
            if len(begin) < len(JPEG_START):
                return None
            if begin.startswith(JPEG_START):
                self._buffer, self._jpeg = begin, JpegScan()
        end = self._jpeg.end(self._buffer) if self._jpeg else self._end_by_length()
        cut = self._next_boundary()
        if cut is not None and (end is None or cut < end):
            return self._take(cut).removesuffix(b"\n").removesuffix(b"\r")
        return None if end is None else self._take(end)

    def _end_by_length(self) -> int | None:
        if self._length is not None and self._length > self._max_bytes:
            raise ValueError(
                f"the MJPEG stream has a picture of {self._length} bytes: expected at most {self._max_bytes}"
            )
        return self._length if self._length is not None and self._length <= len(self._buffer) else None

    def _next_boundary(self) -> int | None:
        """Return the position of the next boundary in the body, or None if the body has no boundary yet.

        Calls skip the bytes that earlier calls have searched.
        """
        found = self._boundary.search(self._buffer, self._searched) if self._boundary else None
        self._searched = max(1, len(self._buffer) - self._overlap_bytes)
        return found.start() if found else None

    def _take(self, size: int) -> bytes:
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._inside = False
        return body


def _require_short(size: int) -> None:
    """Raise ValueError for headers that never end.

    Without a limit on the headers, each search of the growing buffer would take longer than the search before.
    """
    if size > _MAX_HEADER_BYTES:
        raise ValueError(
            f"the MJPEG stream has {size} bytes without the start of a picture: expected at most {_MAX_HEADER_BYTES}"
        )
