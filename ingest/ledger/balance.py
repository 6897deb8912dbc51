"""The balance: do the ledger close? Pure.

Balanced means: accounts and delivered frames tile ``[0, last]`` of every epoch exactly once, and every delivered
frame has exactly one end per pipeline that it was routed to.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ingest.ledger.intervals import Cover, Interval, common, length
from ingest.ledger.states import ALL_PIPELINES, DEAD, NOTHING_RETAINED, EpochLedger, FrameEnd, FrameState, Ledger

_EXAMPLES = 10
"""So many unaccounted or duplicate frames are named; the counts are complete."""
_UNCLEAN = "unclean"


@dataclass
class StateCounts:
    """The balance of one camera or sensor, or of all.

    ``captured`` is every sequence number given; it is what was withheld, spooled, delivered and unaccounted for
    together. ``spooled`` frames are missing in the log, and their agent says that it still has them.
    ``unclean`` frames were in an agent's memory when it was killed: never promised, and not captured as far as the
    ledger goes. ``repeats`` were offered again after a crash and dropped. A delivered frame has an end per pipeline,
    so the ends may sum to more than the frames.
    """

    captured: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    spooled: int = 0
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

    @property
    def balanced(self) -> bool:
        """Tell whether every captured frame ended in exactly one state, or is still with its agent."""
        return self.unaccounted == 0 and self.duplicates == 0

    def add(self, other: StateCounts, times: int = 1) -> None:
        """Add another line, that many times over."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update({key: count * times for key, count in value.items()})
            elif isinstance(mine, list):
                mine.extend(value[: _EXAMPLES - len(mine)])
            else:
                setattr(self, name, mine + value * times)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}


@dataclass(frozen=True, slots=True)
class Balance:
    """The balance per camera and in total. ``unidentified`` dead letters name no frame, so they are no part of it."""

    cameras: dict[str, StateCounts]
    totals: StateCounts
    unidentified: int = 0
    truncated: list[str] = field(default_factory=list)
    """Epochs of which retention has taken the beginning, and the number from which on they are balanced."""
    left_out: list[str] = field(default_factory=list)
    """Cameras of which retention may have taken everything: nothing is said of them, neither good nor bad."""
    unclean: list[str] = field(default_factory=list)
    """Epochs that a kill broke off: the last number that was kept, and the last that a heartbeat had told, -1 for
    none. At least what lies between them was in memory only."""
    sensors: Balance | None = None
    """The same of readings, with sensors for cameras."""

    @property
    def balanced(self) -> bool:
        """Tell whether every captured frame and reading ended in exactly one state, or is still with its agent."""
        return self.totals.balanced and (self.sensors is None or self.sensors.balanced)

    @property
    def settled(self) -> bool:
        """Tell whether it is balanced and no agent has anything left to deliver."""
        return self.balanced and not self.totals.spooled and (self.sensors is None or self.sensors.settled)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "balanced": self.balanced,
            "totals": self.totals.to_dict(),
            "cameras": {name: line.to_dict() for name, line in sorted(self.cameras.items())},
            "unidentified": self.unidentified,
            "truncated": self.truncated,
            "left_out": self.left_out,
            "unclean": self.unclean,
            "sensors": self.sensors.to_dict() if self.sensors else None,
        }


def draw_balance(ledger: Ledger) -> Balance:
    """Draw the balance of what has been entered so far."""
    cameras: dict[str, StateCounts] = {}
    totals, truncated = StateCounts(), []
    newest: dict[str, int] = {}
    for camera, epoch in ledger.epochs:
        newest[camera] = max(epoch, newest.get(camera, 0))
    for (camera, epoch), book in sorted(ledger.epochs.items()):
        begins_in, begins_at = ledger.beginnings.get(camera, (0, 0))
        if epoch < begins_in:
            continue
        first = begins_at if epoch == begins_in else 0
        if first:
            truncated.append(f"{camera}/{epoch} from {first}")
        line = _epoch(f"{camera}/{epoch}", book, first, ledger.waiting(camera, epoch))
        if epoch < newest[camera] and book.end is None:
            _unclosed(f"{camera}/{epoch}", book, line)
        cameras.setdefault(camera, StateCounts()).add(line)
        totals.add(line)
    left_out = sorted(camera for camera, begins in ledger.beginnings.items() if begins == NOTHING_RETAINED)
    sensors = draw_balance(ledger.readings) if ledger.readings else None
    return Balance(cameras, totals, ledger.unidentified, truncated, left_out, _broken_off(ledger), sensors)


def _broken_off(ledger: Ledger) -> list[str]:
    return [
        f"{camera}/{epoch}: kept to {book.end.last}, told to {book.end.told}"
        for (camera, epoch), book in sorted(ledger.epochs.items())
        if book.end and not book.end.clean and epoch >= ledger.beginnings.get(camera, (0, 0))[0]
    ]


def _epoch(name: str, book: EpochLedger, first: int, waiting: list[Interval]) -> StateCounts:
    missing, overlaps = book.cover.holes(first, book.last), book.cover.overlaps()
    spooled = common(missing, waiting)
    kept = Cover(spooled)
    holes = [hole for a, b in missing for hole in kept.holes(a, b)]
    line = StateCounts(
        captured=max(0, book.last - first + 1 - book.withheld[_UNCLEAN]),
        withheld=Counter({reason: n for reason, n in book.withheld.items() if n and reason != _UNCLEAN}),
        spooled=length(spooled),
        delivered=length(book.runs),
        unaccounted=length(holes),
        duplicates=length(overlaps),
        repeats=book.repeats,
        unclean=book.withheld[_UNCLEAN],
    )
    if book.end and not book.end.clean:
        line.unclean += max(0, book.end.told - book.last)
    line.examples += [f"{name}/{a}..{b} is missing" for a, b in holes[:_EXAMPLES]]
    line.examples += [f"{name}/{a}..{b} is accounted twice" for a, b in overlaps[:_EXAMPLES]]
    faulty: dict[FrameState, list[str]] = {}
    for state, count in Counter(book.frames.values()).items():
        judged = judge(state)
        if judged.examples:
            faulty[state], judged.examples = judged.examples, []
        line.add(judged, count)
    if faulty:
        seqs = sorted(seq for seq, state in book.frames.items() if state in faulty)
        line.examples += islice(
            (f"{name}/{seq} {said}" for seq in seqs for said in faulty[book.frames[seq]]), _EXAMPLES
        )
    return line


def _unclosed(name: str, book: EpochLedger, line: StateCounts) -> None:
    """Charge an epoch that a newer one follows and nobody has ended.

    An agent ends each epoch before it begins the next, also after a kill: what its spool had is gone. How much that
    was, nobody can say for sure; the heartbeats say how far it had come.
    """
    line.unaccounted += max(1, book.told - book.last)
    line.examples.append(f"{name} was never ended: the agent's spool is gone; it had told of frame {book.told}")


def judge(state: FrameState) -> StateCounts:
    """Return what one frame in this state adds to the balance; its examples say what is wrong with it."""
    line = StateCounts()
    if not state.lanes:
        return line  # its record has left the log by retention, its ends have not
    line.delivered = 1
    wanted = state.pipelines | {end.pipeline for end in state.ends}
    for pipeline in sorted(wanted - {ALL_PIPELINES}) or [ALL_PIPELINES]:
        ends = {end: n for end, n in state.ends.items() if end.pipeline in (pipeline, ALL_PIPELINES)}
        _judge_pipeline(pipeline or "any pipeline", ends, line)
    return line


def _judge_pipeline(pipeline: str, ends: dict[FrameEnd, int], line: StateCounts) -> None:
    results = sorted(
        (end for end in ends if end.outcome != DEAD), key=lambda end: (end.lane, end.outcome, end.reason)
    )
    died_on = {end.lane for end in ends if end.outcome == DEAD}
    # A replay brings the dead back on a lane of its own; dead and alive on the same lane is twice.
    alive = sum(ends[end] for end in results)
    too_many = max(0, alive - 1) + len(died_on & {end.lane for end in results})
    if not ends:
        line.unaccounted += 1
        line.examples.append(f"has no end in {pipeline}")
    if too_many:
        line.duplicates += too_many
        line.examples.append(f"has {too_many + 1} ends in {pipeline}")
    if results:
        _count(results[0], line)
    elif died_on:
        line.dead += 1


def _count(end: FrameEnd, line: StateCounts) -> None:
    if end.outcome == "shed":
        line.shed[end.reason or "unnamed"] += 1
    elif end.outcome == "empty":
        line.empty += 1
    else:
        line.classified += 1
