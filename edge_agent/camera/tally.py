"""Sequence numbers of captured frames, and counts of withheld frames by reason (``WithheldInterval``). Pure.

A captured frame gets its sequence number before any processing step may withhold the frame. Each numbered frame is
recorded, in the order of sequence numbers, either as kept or as withheld for a reason. A kept frame carries a
``WithheldInterval``, which counts the frames withheld since the previous kept frame.
"""

from __future__ import annotations

from collections import Counter

from ingest.contract.records import WithheldInterval


class Tally:
    """Counter of the captured, kept and withheld frames of one run of a capture process."""

    def __init__(self, camera: str, epoch: int) -> None:
        self._camera, self._epoch = camera, epoch
        self._counts: Counter[str] = Counter()
        self._next = self._settled = 0

    @property
    def captured(self) -> int:
        """Number of frames captured so far."""
        return self._next

    def number(self) -> int:
        """Return the sequence number of a newly captured frame."""
        self._next += 1
        return self._next - 1

    def withhold(self, reason: str) -> None:
        """Record as withheld the oldest frame whose outcome is not recorded yet."""
        self._counts[reason] += 1
        self._settled += 1

    def give_up(self, reason: str) -> None:
        """Record as withheld every frame whose outcome is not recorded yet."""
        while self._settled < self._next:
            self.withhold(reason)

    @property
    def withheld(self) -> WithheldInterval | None:
        """Frames withheld since the last kept frame, counted by reason; None if no frame was withheld."""
        count, last = sum(self._counts.values()), self._settled - 1
        if not count:
            return None
        counts = dict(self._counts)
        return WithheldInterval(
            camera=self._camera, epoch=self._epoch, first=last - count + 1, last=last, counts=counts
        )

    def account(self) -> WithheldInterval | None:
        """Record as kept the oldest frame whose outcome is not recorded yet.

        Return the interval of the frames withheld since the previous kept frame, or None if no frame was withheld.
        """
        account = self.tail()
        self._settled += 1
        return account

    def tail(self) -> WithheldInterval | None:
        """Return the interval of the frames withheld since the last kept frame, and reset the counts.

        Return None if no frame was withheld.
        """
        account = self.withheld
        self._counts.clear()
        return account
