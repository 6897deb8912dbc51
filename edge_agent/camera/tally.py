"""Sequence numbers and the account of what is withheld. Pure.

Every captured frame gets its number here, before anything may drop it, and later is either kept or withheld with a
reason, in the order of the numbers. What is kept carries the account of what was withheld since the previous kept
frame.
"""

from __future__ import annotations

from collections import Counter

from ingest.contract.records import Account


class Tally:
    """The numbers of one epoch."""

    def __init__(self, camera: str, epoch: int) -> None:
        self._camera, self._epoch = camera, epoch
        self._counts: Counter[str] = Counter()
        self._next = self._settled = 0

    @property
    def captured(self) -> int:
        """How many frames have been captured."""
        return self._next

    def number(self) -> int:
        """Return the number of a frame that has just been captured."""
        self._next += 1
        return self._next - 1

    def withhold(self, reason: str) -> None:
        """Enter the oldest frame without a fate as withheld."""
        self._counts[reason] += 1
        self._settled += 1

    def give_up(self, reason: str) -> None:
        """Enter every frame that has no fate yet as withheld."""
        while self._settled < self._next:
            self.withhold(reason)

    @property
    def withheld(self) -> Account | None:
        """What was withheld since the last kept frame; None if nothing was."""
        count, last = sum(self._counts.values()), self._settled - 1
        if not count:
            return None
        counts = dict(self._counts)
        return Account(camera=self._camera, epoch=self._epoch, first=last - count + 1, last=last, counts=counts)

    def account(self) -> Account | None:
        """Enter the oldest frame without a fate as kept. Return what was withheld before it; None if nothing was."""
        account = self.tail()
        self._settled += 1
        return account

    def tail(self) -> Account | None:
        """Return what was withheld after the last kept frame, at the end of the epoch; None if nothing was."""
        account = self.withheld
        self._counts.clear()
        return account
