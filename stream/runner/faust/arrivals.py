"""Whether every record that was fetched arrives: one that is dropped on the way must never be committed past."""

from __future__ import annotations

from typing import NamedTuple

from stream.exceptions import Lost


class Stamp(NamedTuple):
    """A record's place among those fetched of its partition: they are numbered from 0 in each run."""

    run: int
    number: int


class Arrivals:
    """The records of one partition in one run, as they arrive.

    Offsets cannot tell whether one is missing: transaction markers, compaction and retention leave gaps in them.
    """

    def __init__(self, run: int) -> None:
        self.due = Stamp(run, 0)

    def take(self, stamp: Stamp) -> bool:
        """Note an arrival. Return False for a record of another run, which must not be fed. Raise Lost."""
        if stamp.run != self.due.run:
            return False
        if stamp != self.due:
            raise Lost(self.due.number, stamp.number)
        self.due = Stamp(stamp.run, stamp.number + 1)
        return True
