"""Comparison of detected line crossings with the ground truth of simulated cameras. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

TOLERANCE_NS = 1_500_000_000
"""Maximum time between a true crossing and the event that reports the crossing, in ns.

The time of a true crossing is exact. A rule reports a crossing a few frames after the true crossing, when the object
is well past the line. At five frames per second, the rule's hysteresis of three frames delays the event by 0.6 s.
"""


@dataclass(frozen=True, slots=True, order=True)
class LineCrossing:
    """One crossing of a camera's counting line by an object, either from the ground truth or from a detected event.

    ``at_ns`` is Unix time in ns.
    """

    camera: str
    direction: str
    at_ns: int
    label: str = ""


@dataclass(frozen=True, slots=True)
class CrossingScore:
    """Comparison of detected crossings with true crossings.

    ``line_crossings`` counts all true crossings, ``found`` counts the true crossings with an event, and
    ``labels_right`` counts the true crossings whose event has the right label. ``false`` counts the events that match
    no true crossing.
    """

    line_crossings: int
    found: int
    false: int
    labels_right: int


def score(
    truth: Iterable[LineCrossing], events: Iterable[LineCrossing], tolerance_ns: int = TOLERANCE_NS
) -> CrossingScore:
    """Match each true crossing with at most one event of the same camera and direction; pairs that are nearest in
    time are matched first."""
    wanted, seen = _grouped(truth), _grouped(events)
    found = right = 0
    for key, crossings in wanted.items():
        for crossing, event in _matches(crossings, seen.get(key, []), tolerance_ns):
            found += 1
            right += crossing.label == event.label
    total, events_seen = sum(map(len, wanted.values())), sum(map(len, seen.values()))
    return CrossingScore(total, found, events_seen - found, right)


def _grouped(crossings: Iterable[LineCrossing]) -> dict[tuple[str, str], list[LineCrossing]]:
    groups: dict[tuple[str, str], list[LineCrossing]] = defaultdict(list)
    for crossing in sorted(crossings):
        groups[crossing.camera, crossing.direction].append(crossing)
    return groups


def _matches(
    truth: list[LineCrossing], events: list[LineCrossing], tolerance_ns: int
) -> list[tuple[LineCrossing, LineCrossing]]:
    """Pair true crossings with events; both lists are sorted by time.

    Consider only pairs within the tolerance: all pairs of a long run would need too much memory.
    """
    times_ns = [event.at_ns for event in events]
    pairs = sorted(
        (abs(true.at_ns - times_ns[j]), i, j)
        for i, true in enumerate(truth)
        for j in range(
            bisect_left(times_ns, true.at_ns - tolerance_ns), bisect_right(times_ns, true.at_ns + tolerance_ns)
        )
    )
    used_truth: set[int] = set()
    used_events: set[int] = set()
    matched = []
    for _, i, j in pairs:
        if i not in used_truth and j not in used_events:
            used_truth.add(i)
            used_events.add(j)
            matched.append((truth[i], events[j]))
    return matched
