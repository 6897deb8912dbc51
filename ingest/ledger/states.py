"""The ledger's books: what was captured, withheld and delivered, and how each delivered frame ended. Pure.

Records may be entered in any order. ``ingest.ledger.balance`` draws the balance.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from ingest.identity import FrameId, is_replay
from ingest.ledger.intervals import Cover
from ingest.records import Account, EpochEnd

__all__ = ["ALL_PIPELINES", "Books", "End", "EpochBook", "FrameBook"]

ALL_PIPELINES = ""
"""The pipeline of a dead letter that concerns a frame as a whole."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of one frame: ``classified``, ``empty``, ``shed`` or ``dead``, in one pipeline, on one lane."""

    outcome: str
    pipeline: str
    lane: str
    reason: str = ""


@dataclass(slots=True)
class FrameBook:
    """A delivered frame: how often it was offered, and its ends with how often each was written."""

    offered: int = 0
    pipelines: frozenset[str] = frozenset()
    ends: Counter[End] = field(default_factory=Counter)


@dataclass(slots=True)
class EpochBook:
    """One epoch of one camera: a cover by accounts and delivered frames, and the reasons for what was withheld."""

    cover: Cover = field(default_factory=Cover)
    withheld: Counter[str] = field(default_factory=Counter)
    frames: dict[int, FrameBook] = field(default_factory=dict)
    accounts: set[tuple[int, int, tuple[tuple[str, int], ...]]] = field(default_factory=set)
    end: EpochEnd | None = None


@dataclass
class Books:
    """Everything that the topics say of the frames."""

    epochs: dict[tuple[str, int], EpochBook] = field(default_factory=lambda: defaultdict(EpochBook))
    unidentified: int = 0
    """Dead letters that do not say which frame they were."""

    def delivered(self, frame: FrameId, lane: str, account: Account | None) -> None:
        """Enter a frame that is in the log. The same one again is a repeat after an agent's crash, no error.

        A replay offers again what was delivered before: it is no delivery of its own.
        """
        if is_replay(lane):
            return
        book = self.epochs[frame.camera, frame.epoch]
        entry = book.frames.setdefault(frame.seq, FrameBook())
        entry.offered += 1
        if entry.offered == 1:
            book.cover.add(frame.seq, frame.seq)
        if account:
            self.account(account)

    def account(self, account: Account) -> None:
        """Enter an interval account. The very same account again is a repeat."""
        book = self.epochs[account.camera, account.epoch]
        key = (account.first, account.last, tuple(sorted(account.counts.items())))
        if key in book.accounts:
            return
        book.accounts.add(key)
        book.cover.add(account.first, account.last)
        book.withheld.update({reason: count for reason, count in account.counts.items() if count})

    def ended(self, end: EpochEnd) -> None:
        """Enter the end of an epoch."""
        self.epochs[end.camera, end.epoch].end = end

    def finished(self, frame: FrameId, end: End, pipelines: frozenset[str] = frozenset()) -> None:
        """Enter one end of a frame; ``pipelines`` are all that it was routed to, where the record says so."""
        entry = self.epochs[frame.camera, frame.epoch].frames.setdefault(frame.seq, FrameBook())
        entry.ends[end] += 1
        entry.pipelines |= pipelines
