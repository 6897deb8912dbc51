"""Check that every fetched record of one partition arrives."""

from __future__ import annotations

from typing import NamedTuple

from stream.exceptions import RecordsLost


class FetchNumber(NamedTuple):
    """The number of a record among all fetched records of its partition, counted from 0 in each assignment.

    ``assignment`` is the number of the assignment among all assignments of this process.
    """

    assignment: int
    number: int


class Arrivals:
    """A check that every fetched record of one partition arrives, so that no commit covers a dropped record.

    Offsets cannot show that a record is missing: transaction markers, compaction and retention leave gaps between
    offsets.
    """

    def __init__(self, assignment: int) -> None:
        self.due = FetchNumber(assignment, 0)

    def take(self, first: FetchNumber, count: int = 1) -> bool:
        """Note that ``count`` fetched records have arrived, the first of which has the number ``first``.

        Return False for records of another assignment, which must not be processed. Raise RecordsLost if an earlier
        record did not arrive.
        """
        if first.assignment != self.due.assignment:
            return False
        if first != self.due:
            raise RecordsLost(self.due.number, first.number)
        self.due = FetchNumber(first.assignment, first.number + count)
        return True
