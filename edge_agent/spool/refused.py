"""Frames that the disk did not take: never promised, and accounted for as ``overload``. Pure."""

from __future__ import annotations

from collections import Counter

from edge_agent.spool.expiry import merged
from ingest.contract.records import Account


class Refused:
    """What of one epoch was refused since the last kept frame, with what was withheld before it."""

    def __init__(self, camera: str, epoch: int) -> None:
        self._camera, self._epoch = camera, epoch
        self._account: Account | None = None

    @property
    def last(self) -> int:
        """The highest number that was refused and is not told yet, -1 when there is none."""
        return self._account.last if self._account else -1

    def add(self, seq: int, before: Account | None) -> None:
        """Note that a frame was refused; ``before`` is the account of what was withheld before it."""
        counts = Counter(before.counts if before else {}) + Counter(overload=1)
        first = before.first if before else seq
        account = Account(camera=self._camera, epoch=self._epoch, first=first, last=seq, counts=dict(counts))
        self._account = self._joined(account)

    def joined(self, following: Account | None) -> Account | None:
        """Return the account of what was refused, and of ``following``, which comes after it."""
        return self._joined(following) if following else self._account

    def told(self) -> None:
        """Note that what was refused so far is accounted for."""
        self._account = None

    def _joined(self, account: Account) -> Account:
        # every number is in a message of the capture or in the account of one: there is no hole between the two
        return merged([self._account, account])[-1] if self._account else account
