"""Parser for endless multipart responses (multipart/x-mixed-replace) with one picture in each part. Pure.

The parser accepts boundaries with and without leading dashes, and parts with and without a Content-Length, because
cameras differ in both.
"""

from __future__ import annotations

import re

_DASHES = b"--"
_MAX_HEADER_BYTES = 16 * 1024
_BOUNDARY = re.compile(r"""boundary\s*=\s*("[^"]*"|[^;\s]+)""", re.IGNORECASE)
_LENGTH = re.compile(rb"^content-length:\s*(\d+)\s*$", re.IGNORECASE | re.MULTILINE)
_HEADERS_END = re.compile(rb"\r?\n\r?\n")


def boundary_of(content_type: str) -> bytes:
    """Return the boundary in a Content-Type header, without leading dashes; empty if the header has no boundary."""
    found = _BOUNDARY.search(content_type)
    return found[1].strip('"').lstrip("-").encode("latin-1", "replace") if found else b""


class Multipart:
    """Incremental parser from received bytes to complete parts.

    Raise ValueError for a part larger than ``max_bytes``.

    If ``boundary`` is empty, the first line of the first part is the boundary.
    """

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self._mark = _DASHES + boundary
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._length: int | None = None
        self._inside = False

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes. Return the bodies of the parts that are now complete."""
        self._buffer += data
        found = []
        while (body := self._body() if self._inside else self._headers()) is not None:  # None: needs more bytes
            if body:
                found.append(body)
        if len(self._buffer) > self._max_bytes + _MAX_HEADER_BYTES:
            raise ValueError(f"the multipart response has no complete part within {self._max_bytes} bytes")
        return found

    def _headers(self) -> bytes | None:
        start = self._buffer.find(self._mark)
        if start < 0:
            return None
        end = _HEADERS_END.search(self._buffer, start)
        if not end:
            return None
        # without a given boundary, the first line is the boundary, because two dashes also occur in pictures
        if self._mark == _DASHES:
            self._mark = bytes(self._buffer[start : end.end()].split(maxsplit=1)[0])
        length = _LENGTH.search(self._buffer, start, end.end())
        self._length = int(length[1]) if length else None
        if self._length is not None and self._length > self._max_bytes:
            raise ValueError(f"a multipart part of {self._length} bytes exceeds the limit of {self._max_bytes}")
        del self._buffer[: end.end()]
        self._inside = True
        return b""

    def _body(self) -> bytes | None:
        size = self._length if self._length is not None else self._buffer.find(self._mark)
        if size < 0 or len(self._buffer) < size:
            return None
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._inside = False
        return body
