"""The balance of the ledger: whether every captured frame has exactly one known outcome. Pure.

The ledger balances if two conditions hold: one for sequence numbers, and one for final states. Every sequence number
from 0 to the last number of every epoch (capture run) was either withheld or delivered, exactly once. Every delivered
frame has exactly one final state in each pipeline that the frame was routed to.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from ingest.contract.topics import FRAMES, FRAMES_LATE
from ingest.ledger.intervals import Cover, Interval, common, length
from ingest.ledger.states import ALL_PIPELINES, DEAD, NOTHING_RETAINED, EpochLedger, FrameEnd, FrameState, Ledger

_EXAMPLES = 10
"""Maximum number of frames that a Balance names as examples of a fault. The counts in a Balance include all faulty
frames."""
_UNCLEAN = "unclean"
_OF_FRAMES = (FRAMES, FRAMES_LATE)
"""Topics in which each record is one frame, so that each deleted record is one lost frame."""


@dataclass
class StateCounts:
    """Numbers of frames or readings by final state, for one camera or sensor or for all together.

    - ``captured`` counts all sequence numbers: withheld, spooled, delivered and unaccounted frames together.
    - ``spooled`` frames are not in the log yet, but an agent reports them as stored in its spool.
    - ``repeats`` counts frames that an agent sent a second time after a crash; the second copies are ignored.
    - ``unclean`` frames were in the memory of an agent when the agent was killed. ``captured`` does not include
      ``unclean`` frames, because they were never stored.

    - ``expired_unread`` frames were deleted by retention before the prepare stage read them. Because the cameras of
      ``expired_unread`` frames are unknown, only the total includes these frames, and ``captured`` does not.

    A delivered frame has one final state per pipeline, so there may be more final states than frames.
    """

    captured: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    spooled: int = 0
    delivered: int = 0
    classified: int = 0
    empty: int = 0
    shed: Counter[str] = field(default_factory=Counter)
    dead: int = 0
    expired_unread: int = 0
    unaccounted: int = 0
    duplicates: int = 0
    repeats: int = 0
    unclean: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def balanced(self) -> bool:
        """Whether every captured frame has exactly one outcome or is still in its agent's spool."""
        return self.unaccounted == 0 and self.duplicates == 0 and self.expired_unread == 0

    def add(self, other: StateCounts, times: int = 1) -> None:
        """Add the counts of ``other`` to these counts, ``times`` times."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update({key: count * times for key, count in value.items()})
            elif isinstance(mine, list):
                mine.extend(value[: _EXAMPLES - len(mine)])
            else:
                setattr(self, name, mine + value * times)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of plain values that can be written as JSON."""
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(self).items()}


@dataclass(frozen=True, slots=True)
class Balance:
    """The counts of frames by outcome, and the faults, of each camera and of all cameras together.

    ``unidentified`` counts dead letters that name no frame, and are therefore in no other count.
    """

    cameras: dict[str, StateCounts]
    totals: StateCounts
    unidentified: int = 0
    truncated: list[str] = field(default_factory=list)
    """Epochs (capture runs) whose first frames retention has deleted, each with the number of the first frame that
    the audit checks."""
    left_out: list[str] = field(default_factory=list)
    """Cameras that the audit does not check, because retention may have deleted all their frames."""
    unclean: list[str] = field(default_factory=list)
    """Epochs (capture runs) that ended because the agent or its capture was killed. Each entry gives two sequence
    numbers of such a capture run, -1 for none: the last that was stored, and the last that a heartbeat reported.
    Frames between these two numbers were only in the agent's memory. Frames after the last reported one may have
    been lost too.
    """
    expired_unread: list[str] = field(default_factory=list)
    """Offsets that retention deleted before a service read the records, each with the service's consumer group."""
    sensors: Balance | None = None
    """The same counts and faults for readings, with sensors in place of cameras."""
    hours: dict[str, dict[int, StateCounts]] = field(default_factory=dict)
    """The counts of each camera by hour since 1970, in UTC; empty unless the audit computes them."""

    @property
    def balanced(self) -> bool:
        """Whether every captured frame and reading has exactly one outcome or is still in its agent's spool."""
        return self.totals.balanced and not self.expired_unread and (self.sensors is None or self.sensors.balanced)

    @property
    def settled(self) -> bool:
        """Whether every captured frame and reading has exactly one outcome, and no agent still has any to deliver."""
        return self.balanced and not self.totals.spooled and (self.sensors is None or self.sensors.settled)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of plain values that can be written as JSON."""
        return {
            "balanced": self.balanced,
            "totals": self.totals.to_dict(),
            "cameras": {name: counts.to_dict() for name, counts in sorted(self.cameras.items())},
            "unidentified": self.unidentified,
            "truncated": self.truncated,
            "left_out": self.left_out,
            "unclean": self.unclean,
            "expired_unread": self.expired_unread,
            "sensors": self.sensors.to_dict() if self.sensors else None,
            "hours": {
                name: {
                    hour: {**counts.to_dict(), "balanced": counts.balanced} for hour, counts in sorted(hours.items())
                }
                for name, hours in sorted(self.hours.items())
            },
        }


class EpochGaps(NamedTuple):
    """Intervals of sequence numbers of an epoch (capture run): those in a spool, the missing ones, and those
    accounted twice."""

    spooled: list[Interval]
    holes: list[Interval]
    overlaps: list[Interval]


def compute_balance(ledger: Ledger) -> Balance:
    """Return the counts by outcome and the faults of all frames and readings that were added to the ledger so far."""
    cameras: dict[str, StateCounts] = {}
    totals, truncated, unclean = StateCounts(), [], []
    by_camera: defaultdict[str, dict[int, EpochLedger]] = defaultdict(dict)
    for (camera, epoch), entries in ledger.epochs.items():
        by_camera[camera][epoch] = entries
    for (camera, epoch), entries in sorted(ledger.epochs.items()):
        first_epoch, first_seq = ledger.starts.get(camera, (0, 0))
        if epoch < first_epoch:
            continue
        name, first = f"{camera}/{epoch}", first_seq if epoch == first_epoch else 0
        if first:
            truncated.append(f"{name} from {first}")
        if entries.end and not entries.end.clean:
            unclean.append(f"{name}: kept to {entries.end.last}, reported to {entries.end.reported}")
        counts = _count_epoch(name, entries, first, ledger.spooled(camera, epoch))
        if entries.end is None and is_over(epoch, by_camera[camera]):
            # An agent ends each epoch before it starts the next, even after a kill. Without the end, its spool is
            # lost. The number of lost frames is unknown; heartbeats give a lower bound.
            counts.unaccounted += max(1, entries.reported - entries.last)
            counts.examples.append(
                f"{name} was never ended: the agent's spool is lost; it had reported frame {entries.reported}"
            )
        cameras.setdefault(camera, StateCounts()).add(counts)
        totals.add(counts)
    left_out = sorted(camera for camera, start in ledger.starts.items() if start == NOTHING_RETAINED)
    sensors = compute_balance(ledger.readings) if ledger.readings else None
    expired = {tp: [(a, b) for a, b, depth in at.runs() if depth] for tp, at in ledger.expired_unread.items()}
    totals.expired_unread = sum(length(gaps) for (_, topic, _), gaps in expired.items() if topic in _OF_FRAMES)
    places = [
        f"{topic}[{partition}] {first}..{last} unread by {group}"
        for (group, topic, partition), gaps in sorted(expired.items())
        for first, last in gaps
    ]
    return Balance(cameras, totals, ledger.unidentified, truncated, left_out, unclean, places, sensors)


def is_over(epoch: int, epochs: Mapping[int, EpochLedger]) -> bool:
    """Return whether a later epoch (capture run) of the same camera has begun, for an epoch whose end was never
    reported.

    The order of the heartbeats shows which epoch is later. The epochs' numbers do not always show the order, because
    a new spool or a corrected clock may give a later epoch a lower number. Only if one of two epochs has no
    heartbeat, the epoch with the higher number counts as later.
    """
    own = epochs[epoch]
    return any(
        later if (later := each.began_after(own)) is not None else other > epoch
        for other, each in epochs.items()
        if other != epoch
    )


def gaps_of(entries: EpochLedger, first: int, waiting: list[Interval]) -> EpochGaps:
    """Return the sequence numbers of an epoch (capture run), from ``first`` on, that are in a spool, missing, or
    accounted twice. ``waiting`` has the sequence numbers that agents report as stored in their spools."""
    missing = entries.cover.holes(first, entries.last)
    spooled = common(missing, waiting)
    spool = Cover(spooled)
    return EpochGaps(spooled, [hole for a, b in missing for hole in spool.holes(a, b)], entries.cover.overlaps())


def _count_epoch(name: str, entries: EpochLedger, first: int, waiting: list[Interval]) -> StateCounts:
    spooled, holes, overlaps = gaps_of(entries, first, waiting)
    counts = StateCounts(
        captured=max(0, entries.last - first + 1 - entries.withheld[_UNCLEAN]),
        withheld=Counter({reason: n for reason, n in entries.withheld.items() if n and reason != _UNCLEAN}),
        spooled=length(spooled),
        delivered=length(entries.runs),
        unaccounted=length(holes),
        duplicates=length(overlaps),
        repeats=entries.repeats,
        unclean=entries.withheld[_UNCLEAN],
    )
    if entries.end and not entries.end.clean:
        counts.unclean += max(0, entries.end.reported - entries.last)
    counts.examples += [f"{name}/{a}..{b} is missing" for a, b in holes[:_EXAMPLES]]
    counts.examples += [f"{name}/{a}..{b} is accounted twice" for a, b in overlaps[:_EXAMPLES]]
    faulty: dict[FrameState, list[str]] = {}
    for state, frames in Counter(entries.frames.values()).items():
        of_one = count_frame(state)
        if of_one.examples:
            faulty[state], of_one.examples = of_one.examples, []
        counts.add(of_one, frames)
    if faulty:
        seqs = sorted(seq for seq, state in entries.frames.items() if state in faulty)
        faults = (f"{name}/{seq} {fault}" for seq in seqs for fault in faulty[entries.frames[seq]])
        counts.examples += islice(faults, _EXAMPLES)
    return counts


def count_frame(state: FrameState) -> StateCounts:
    """Return the counts for one frame in the given state.

    The field ``examples`` of the counts describes the frame's faults.
    """
    counts = StateCounts()
    if not state.lanes:
        return counts  # retention has deleted its frame record, but not its ends
    counts.delivered = 1
    wanted = state.pipelines | {end.pipeline for end in state.ends}
    for pipeline in sorted(wanted - {ALL_PIPELINES}) or [ALL_PIPELINES]:
        ends = {end: n for end, n in state.ends.items() if end.pipeline in (pipeline, ALL_PIPELINES)}
        _count_pipeline(pipeline or "any pipeline", ends, counts)
    return counts


def _count_pipeline(pipeline: str, ends: dict[FrameEnd, int], counts: StateCounts) -> None:
    results = sorted(
        (end for end in ends if end.outcome != DEAD), key=lambda end: (end.lane, end.outcome, end.reason)
    )
    dead_lanes = {end.lane for end in ends if end.outcome == DEAD}
    # A replay revives a dead frame on a lane of its own. A dead letter and a result on the same lane are a duplicate.
    too_many = max(0, sum(ends[end] for end in results) - 1) + len(dead_lanes & {end.lane for end in results})
    if not ends:
        counts.unaccounted += 1
        counts.examples.append(f"has no end in {pipeline}")
    if too_many:
        counts.duplicates += too_many
        counts.examples.append(f"has {too_many + 1} ends in {pipeline}")
    if not results:
        counts.dead += bool(dead_lanes)
    elif results[0].outcome == "shed":
        counts.shed[results[0].reason or "unnamed"] += 1
    elif results[0].outcome == "empty":
        counts.empty += 1
    else:
        counts.classified += 1
