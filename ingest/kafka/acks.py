"""Track the records of one partition that are not finished, and the offset that may be committed. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from ingest.exceptions import UnknownOffset


class AckTracker:
    """The records of one partition that were passed to its processor and are not finished.

    Records may finish in any order. ``position`` stops before the first unfinished record, so a commit never covers a
    record whose output the broker does not have. Between two records, offsets may be missing because of transaction
    markers and retention.
    """

    def __init__(self, position: int) -> None:
        self.next = position
        """The lowest offset that was not passed to the processor."""
        self._open: dict[int, bool] = {}  # offset → finished; in order of delivery, which is the order of offsets
        self.position = position
        """The offset that a restart must read next."""

    @property
    def open(self) -> int:
        """Number of delivered records at or after ``position``."""
        return len(self._open)

    def deliver(self, offset: int) -> bool:
        """Note that a record is about to be processed.

        Return False for a repeated record, which must not be processed again.
        """
        if offset < self.next:
            return False
        self._open[offset] = False
        self.next = offset + 1
        return True

    def finish(self, offsets: Iterable[int]) -> int:
        """Note that records are finished, and return the new position.

        Raise UnknownOffset for a record that was not delivered or is already finished.
        """
        for offset in offsets:
            if self._open.get(offset) is not False:
                raise UnknownOffset(offset)
            self._open[offset] = True
        first_finished = list(takewhile(self._open.__getitem__, self._open))
        for offset in first_finished:
            del self._open[offset]
        if first_finished:
            self.position = first_finished[-1] + 1
        return self.position
