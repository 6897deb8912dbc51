"""An answer that never ends: parts with headers, one picture each (multipart/x-mixed-replace). Pure.

Cameras do not agree on where the dashes belong, and some give no lengths; both are put up with.
"""

from __future__ import annotations

import re

_DASHES = b"--"
_MAX_HEADER_BYTES = 16 * 1024
_BOUNDARY = re.compile(r"""boundary\s*=\s*("[^"]*"|[^;\s]+)""", re.IGNORECASE)
_LENGTH = re.compile(rb"^content-length:\s*(\d+)\s*$", re.IGNORECASE | re.MULTILINE)
_HEADERS_END = re.compile(rb"\r?\n\r?\n")


def boundary_of(content_type: str) -> bytes:
    """Return the boundary that a Content-Type gives, without dashes in front; empty if it gives none."""
    found = _BOUNDARY.search(content_type)
    return found[1].strip('"').lstrip("-").encode("latin-1", "replace") if found else b""


class Multipart:
    """Takes bytes as they come and gives whole parts. Raise ValueError when a part is larger than ``max_bytes``.

    An empty ``boundary`` is the one that the first part begins with.
    """

    def __init__(self, boundary: bytes, max_bytes: int) -> None:
        self._mark = _DASHES + boundary
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._length: int | None = None
        self._inside = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the bodies that are whole by now."""
        self._buffer += data
        found = []
        while (body := self._next()) is not None:
            if body:
                found.append(body)
        if len(self._buffer) > self._max_bytes + _MAX_HEADER_BYTES:
            raise ValueError(f"a part of more than {self._max_bytes} bytes, or none at all")
        return found

    def _next(self) -> bytes | None:
        """Return a body, empty when there is only progress, None when more bytes are needed."""
        return self._body() if self._inside else self._headers()

    def _headers(self) -> bytes | None:
        start = self._buffer.find(self._mark)
        if start < 0:
            return None
        end = _HEADERS_END.search(self._buffer, start)
        if not end:
            return None
        if self._mark == _DASHES:  # the camera does not say, and two dashes are in many a picture
            self._mark = bytes(self._buffer[start : end.end()].split(maxsplit=1)[0])
        length = _LENGTH.search(self._buffer, start, end.end())
        self._length = int(length[1]) if length else None
        if self._length is not None and self._length > self._max_bytes:
            raise ValueError(f"a part of {self._length} bytes, at most {self._max_bytes} are taken")
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
