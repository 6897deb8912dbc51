"""Search for the end of a JPEG in a stream of bytes, by the markers in the JPEG (ITU-T T.81, annex B). Pure."""

from __future__ import annotations

import re

JPEG_START = b"\xff\xd8\xff"
"""First three bytes of every JPEG: the marker "start of image" and the first byte of the next marker."""
_IN_SCAN = re.compile(rb"\xff[\xc4\xd9-\xdf\xe0-\xef\xfe]")
"""Markers that may follow the coded data of a scan. All other markers inside coded data are fill bytes, restart
markers or damage."""
_MARKER_BYTES, _LENGTH_BYTES = 2, 2
_SCAN, _END = 0xDA, 0xD9
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))


class JpegScan:
    """Incremental search for the end of a JPEG that begins at the start of a growing buffer.

    The search skips each segment by the length in the segment's header, so the end marker of a thumbnail inside a
    segment is ignored.
    """

    def __init__(self) -> None:
        self._at = len(JPEG_START) - 1
        self._in_scan = False

    def end(self, data: bytes | bytearray) -> int | None:
        """Return the position after the end marker, or None while ``data`` does not contain the end marker."""
        while self._at + _MARKER_BYTES <= len(data):
            if self._in_scan or data[self._at] != 0xFF:
                found = _IN_SCAN.search(data, self._at)
                if found is None:
                    self._at = max(self._at, len(data) - 1)
                    return None
                self._at, self._in_scan = found.start(), False
            marker = data[self._at + 1]
            if marker == _END:
                return self._at + _MARKER_BYTES
            if marker == 0xFF:
                self._at += 1
            elif marker in _WITHOUT_LENGTH:
                self._at += _MARKER_BYTES
            elif not self._skip_segment(data):
                return None
        return None

    def _skip_segment(self, data: bytes | bytearray) -> bool:
        """Move the search position behind the segment that begins at the search position.

        Return False while ``data`` does not contain the segment's length field.
        """
        start = self._at + _MARKER_BYTES
        if start + _LENGTH_BYTES > len(data):
            return False
        self._in_scan = data[self._at + 1] == _SCAN
        self._at = start + max(_LENGTH_BYTES, int.from_bytes(data[start : start + _LENGTH_BYTES]))
        return True
