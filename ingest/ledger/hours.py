"""The counts of frames of each camera by hour of capture, which add up to the counts of the whole ledger. Pure.

A frame belongs to the first hour in which its sequence number or a higher one of its epoch (capture run) was seen.
Withheld frames belong to the hour of the record that names them, even if their interval crosses a full hour.
"""

from __future__ import annotations

import bisect
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate

from ingest.ledger.balance import StateCounts, count_frame, gaps_of, is_over
from ingest.ledger.intervals import Interval
from ingest.ledger.states import EpochLedger, FrameState, Ledger

MAX_EXAMPLES = 10
"""Maximum number of faulty frames that the counts of one hour name."""
_UNCLEAN = "unclean"


def compute_hours(ledger: Ledger) -> dict[str, dict[int, StateCounts]]:
    """Return the counts of each camera by hour since 1970, in UTC. The counts of all hours add up to the counts of
    the whole ledger.

    ``captured`` is the sum of the withheld, spooled, delivered and unaccounted frames of an hour, so a frame that was
    both withheld and delivered counts twice. ``examples`` names faulty frames as ``CAMERA/EPOCH/SEQ``.
    """
    found: defaultdict[str, defaultdict[int, StateCounts]] = defaultdict(lambda: defaultdict(StateCounts))
    epochs: defaultdict[str, dict[int, EpochLedger]] = defaultdict(dict)
    for (camera, epoch), entries in ledger.epochs.items():
        epochs[camera][epoch] = entries
    for (camera, epoch), entries in sorted(ledger.epochs.items()):
        first_epoch, first_seq = ledger.starts.get(camera, (0, 0))
        if epoch < first_epoch:
            continue
        hours, hour_of = found[camera], _hour_of(entries)
        first = first_seq if epoch == first_epoch else 0
        _count_gaps(f"{camera}/{epoch}", hours, entries, first, ledger.spooled(camera, epoch))
        _count_frames(f"{camera}/{epoch}", hours, entries, hour_of)
        last = hours[hour_of(entries.last)]
        last.repeats += entries.repeats
        if entries.end and not entries.end.clean:
            last.unclean += max(0, entries.end.reported - entries.last)
        if entries.end is None and is_over(epoch, epochs[camera]):
            last.unaccounted += max(1, entries.reported - entries.last)
            _example(last, f"{camera}/{epoch}/{max(0, entries.reported)}")
    return {camera: dict(hours) for camera, hours in found.items()}


def _hour_of(entries: EpochLedger) -> Callable[[int], int]:
    """Return a function that returns the hour of capture for a sequence number of an epoch (capture run)."""
    hours = sorted(entries.hours.last)
    lasts = list(accumulate((entries.hours.last[hour] for hour in hours), max))

    def hour_of(seq: int) -> int:
        return hours[min(bisect.bisect_left(lasts, seq), len(hours) - 1)] if hours else 0

    return hour_of


def _count_gaps(
    name: str, hours: defaultdict[int, StateCounts], entries: EpochLedger, first: int, waiting: list[Interval]
) -> None:
    hour_of = _hour_of(entries)
    for hour, withheld in entries.hours.withheld.items():
        own = {reason: count for reason, count in withheld.items() if reason != _UNCLEAN}
        hours[hour].withheld.update(own)
        hours[hour].unclean += withheld[_UNCLEAN]
        hours[hour].captured += sum(own.values())
    spooled, holes, overlaps = gaps_of(entries, first, waiting)
    for hour, a, b in _by_hour(spooled, hour_of):
        hours[hour].spooled += b - a + 1
        hours[hour].captured += b - a + 1
    for hour, a, b in _by_hour(holes, hour_of):
        hours[hour].unaccounted += b - a + 1
        hours[hour].captured += b - a + 1
        for seq in range(a, min(b + 1, a + MAX_EXAMPLES)):
            _example(hours[hour], f"{name}/{seq}")
    for hour, a, b in _by_hour(overlaps, hour_of):
        hours[hour].duplicates += b - a + 1
        _example(hours[hour], f"{name}/{a}")


def _count_frames(
    name: str, hours: defaultdict[int, StateCounts], entries: EpochLedger, hour_of: Callable[[int], int]
) -> None:
    groups = Counter((hour_of(seq), state) for seq, state in entries.frames.items())
    faulty: set[FrameState] = set()
    for (hour, state), count in groups.items():
        of_one = count_frame(state)
        if of_one.examples:
            faulty.add(state)
            of_one.examples = []
        of_one.captured = of_one.delivered
        hours[hour].add(of_one, count)
    for seq in sorted(seq for seq, state in entries.frames.items() if state in faulty):
        _example(hours[hour_of(seq)], f"{name}/{seq}")


def _by_hour(intervals: list[Interval], hour_of: Callable[[int], int]) -> Iterator[tuple[int, int, int]]:
    """Divide intervals of sequence numbers at full hours, and yield for each part its hour, first and last number."""
    for first, last in intervals:
        while first <= last:
            hour = hour_of(first)
            count = bisect.bisect_right(range(first, last + 1), hour, key=hour_of)
            yield hour, first, first + count - 1
            first += count


def _example(counts: StateCounts, frame: str) -> None:
    if len(counts.examples) < MAX_EXAMPLES and frame not in counts.examples:
        counts.examples.append(frame)
