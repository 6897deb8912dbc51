"""The balance: do the books close? Pure.

Balanced means: accounts and delivered frames tile ``[0, last]`` of every epoch exactly once, and every delivered
frame has exactly one end per pipeline that it was routed to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ingest.identity import is_replay
from ingest.ledger.intervals import length
from ingest.ledger.states import ALL_PIPELINES, Books, End, EpochBook, FrameBook

__all__ = ["Balance", "Line", "draw"]

_EXAMPLES = 10
"""So many unaccounted or duplicate frames are named; the counts are complete."""


@dataclass
class Line:
    """The balance of one camera, or of all.

    ``captured`` is every sequence number given. ``unclean`` frames were in an agent's memory when it was killed:
    never promised, and not captured as far as the ledger goes. ``repeats`` were offered again after a crash and
    dropped. ``delivered`` frames have ends per pipeline, so the ends may sum to more than the frames.
    """

    captured: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    classified: int = 0
    empty: int = 0
    shed: Counter[str] = field(default_factory=Counter)
    dead: int = 0
    unaccounted: int = 0
    duplicates: int = 0
    repeats: int = 0
    unclean: int = 0
    examples: list[str] = field(default_factory=list)

    def __iadd__(self, other: Line) -> Line:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(value)
            else:
                setattr(self, name, mine + value)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = {name: dict(v) if isinstance(v, Counter) else v for name, v in vars(self).items()}
        return values | {"examples": self.examples[:_EXAMPLES]}


@dataclass(frozen=True, slots=True)
class Balance:
    """The balance per camera and in total. ``unidentified`` dead letters name no frame, so they are no part of it."""

    cameras: dict[str, Line]
    totals: Line
    unidentified: int
    truncated: list[str]
    """Epochs of which retention has taken the beginning: they are balanced from their first frame left."""

    @property
    def balanced(self) -> bool:
        """Tell whether every captured frame ended in exactly one state."""
        return self.totals.unaccounted == 0 and self.totals.duplicates == 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "balanced": self.balanced,
            "totals": self.totals.to_dict(),
            "cameras": {name: line.to_dict() for name, line in sorted(self.cameras.items())},
            "unidentified": self.unidentified,
            "truncated": self.truncated,
        }


def draw(books: Books, truncated: Iterable[tuple[str, int]] = ()) -> Balance:
    """Draw the balance. ``truncated`` epochs begin at their first number left instead of 0."""
    cut = set(truncated)
    cameras: dict[str, Line] = {}
    totals = Line()
    for (camera, epoch), book in sorted(books.epochs.items()):
        line = _epoch(f"{camera}/{epoch}", book, from_first=(camera, epoch) in cut)
        cameras.setdefault(camera, Line())
        cameras[camera] += line
        totals += line
    return Balance(cameras, totals, books.unidentified, [f"{c}/{e}" for c, e in sorted(cut)])


def _epoch(name: str, book: EpochBook, *, from_first: bool) -> Line:
    line = Line(withheld=Counter(book.withheld))
    first = book.cover.first if from_first else 0
    last = max(book.cover.last, book.end.last if book.end else -1)
    holes, overlaps = book.cover.holes(first, last), book.cover.overlaps()
    line.captured = max(0, last - first + 1)
    line.unaccounted, line.duplicates = length(holes), length(overlaps)
    line.examples += [f"{name}/{a}..{b} is missing" for a, b in holes]
    line.examples += [f"{name}/{a}..{b} is accounted twice" for a, b in overlaps]
    if book.end and not book.end.clean:
        line.unclean = max(0, book.end.told - last)
    for seq, frame in sorted(book.frames.items()):
        _frame(f"{name}/{seq}", frame, line)
    return line


def _frame(name: str, frame: FrameBook, line: Line) -> None:
    if not frame.offered:
        return  # its record has left the log by retention, its ends have not
    line.delivered += 1
    line.repeats += frame.offered - 1
    wanted = frame.pipelines or {e.pipeline for e in frame.ends}
    for pipeline in sorted(wanted - {ALL_PIPELINES}) or [ALL_PIPELINES]:
        _pipeline(f"{name} in {pipeline or 'any pipeline'}", frame, pipeline, line)


def _pipeline(name: str, frame: FrameBook, pipeline: str, line: Line) -> None:
    ends = [(e, n) for e, n in frame.ends.items() if e.pipeline in (pipeline, ALL_PIPELINES)]
    first = [(e, n) for e, n in ends if not is_replay(e.lane)]
    again = [(e, n) for e, n in ends if is_replay(e.lane)]
    died = any(e.outcome == "dead" for e, _ in first)
    results = [(e, n) for e, n in (*first, *again) if e.outcome != "dead"]
    too_many = sum(n for _, n in results) - 1
    if died and any(e.outcome != "dead" for e, _ in first):
        too_many += 1  # dead and alive on the same lane; a replay that brings it back is as it should be
    if not ends:
        line.unaccounted += 1
        line.examples.append(f"{name} has no end")
    if too_many > 0:
        line.duplicates += too_many
        line.examples.append(f"{name} has {too_many + 1} ends")
    if results:
        _count(results[0][0], line)
    elif ends:
        line.dead += 1


def _count(end: End, line: Line) -> None:
    if end.outcome == "shed":
        line.shed[end.reason or "unnamed"] += 1
    elif end.outcome == "empty":
        line.empty += 1
    else:
        line.classified += 1
