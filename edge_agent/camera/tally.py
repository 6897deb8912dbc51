"""Sequence numbers of frames, and the number of withheld frames by reason (``WithheldInterval``). Pure.

Every captured frame gets its number here, before any stage may drop the frame. Later, each frame is recorded as kept
or as withheld with a reason, in the order of the numbers. A kept frame carries a ``WithheldInterval``: the frames
withheld since the previous kept frame.
"""

from __future__ import annotations

from collections import Counter

from ingest.contract.records import WithheldInterval


class Tally:
    """Counter of the captured and the withheld frames of one epoch."""

    def __init__(self, camera: str, epoch: int) -> None:
        self._camera, self._epoch = camera, epoch
        self._counts: Counter[str] = Counter()
        self._next = self._settled = 0

    @property
    def captured(self) -> int:
        """Number of captured frames."""
        return self._next

    def number(self) -> int:
        """Return the sequence number for a newly captured frame."""
        self._next += 1
        return self._next - 1

    def withhold(self, reason: str) -> None:
        """Record the oldest undecided frame as withheld."""
        self._counts[reason] += 1
        self._settled += 1

    def give_up(self, reason: str) -> None:
        """Record every undecided frame as withheld."""
        while self._settled < self._next:
            self.withhold(reason)

    @property
    def withheld(self) -> WithheldInterval | None:
        """Number of frames withheld since the last kept frame, by reason; None if no frame was withheld."""
        count, last = sum(self._counts.values()), self._settled - 1
        if not count:
            return None
        counts = dict(self._counts)
        return WithheldInterval(
            camera=self._camera, epoch=self._epoch, first=last - count + 1, last=last, counts=counts
        )

    def account(self) -> WithheldInterval | None:
        """Record the oldest undecided frame as kept.

        Return the interval of the frames withheld directly before this frame, or None.
        """
        account = self.tail()
        self._settled += 1
        return account

    def tail(self) -> WithheldInterval | None:
        """Return the interval of the frames withheld after the last kept frame, and clear the counts.

        Return None if no frame was withheld.
        """
        account = self.withheld
        self._counts.clear()
        return account
