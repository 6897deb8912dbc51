"""Parts of files for players, which jump to a moment of a clip (RFC 9110, section 14). Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

_ONE_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


class ByteRange(NamedTuple):
    """The bytes of a file from ``start`` up to but not including ``stop``."""

    start: int
    stop: int

    @property
    def satisfiable(self) -> bool:
        """Whether the file has bytes of the range."""
        return self.start < self.stop


def byte_range(header: str, size: int) -> ByteRange | None:
    """Return the range that a header ``Range`` selects from a file of ``size`` bytes.

    Return None if the whole file is to be sent: without a header, for several ranges, and for a header that cannot be
    read.
    """
    found = _ONE_RANGE.fullmatch(header.replace(" ", ""))
    if found is None or found[1] == found[2] == "":
        return None
    first, last = found.groups()
    if not first:
        return ByteRange(max(0, size - int(last)), size)  # the last bytes
    if last and int(last) < int(first):
        return None
    return ByteRange(int(first), min(int(last) + 1, size) if last else size)
