"""Which offsets may be committed: those below the first record that is not done with."""

from __future__ import annotations

from collections.abc import Iterable

from stream.exceptions import UnknownOffset


class AckTracker:
    """The records of one partition that were fed to its processor and are not yet done with.

    Records may finish in any order; ``position`` moves only over an unbroken run of finished ones, so a commit never
    covers a record whose output the broker does not have. Offsets may have gaps (transaction markers, retention).
    """

    def __init__(self, position: int) -> None:
        self._next = position
        self._open: dict[int, bool] = {}  # offset → finished; in order of delivery, which is the order of offsets
        self._position = position

    @property
    def position(self) -> int:
        """The offset that a restart must read next."""
        return self._position

    @property
    def open(self) -> int:
        """How many records keep the position from moving, or wait behind one that does."""
        return len(self._open)

    def deliver(self, offset: int) -> bool:
        """Note that a record is about to be fed. Return False for a repeat, which must not be fed again."""
        if offset < self._next:
            return False
        self._open[offset] = False
        self._next = offset + 1
        return True

    def finish(self, offsets: Iterable[int]) -> int:
        """Note that records are done with, and return the position. Raise UnknownOffset."""
        for offset in offsets:
            if self._open.get(offset) is not False:
                raise UnknownOffset(offset)
            self._open[offset] = True
        for offset, finished in list(self._open.items()):
            if not finished:
                break
            del self._open[offset]
            self._position = offset + 1
        return self._position
