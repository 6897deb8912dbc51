"""Comparison of detected line crossings with the ground truth of simulated cameras. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

TOLERANCE_NS = 1_500_000_000
"""Largest time between a true crossing and its event, in ns.

A rule reports a crossing a few frames later, when the object is well past the line. At five frames per second a
hysteresis of three frames takes 0.6 s. The time of the true crossing is exact.
"""


@dataclass(frozen=True, slots=True, order=True)
class LineCrossing:
    """One crossing of a camera's line by an object, true or detected. ``at_ns`` is Unix time in ns."""

    camera: str
    direction: str
    at_ns: int
    label: str = ""


@dataclass(frozen=True, slots=True)
class CrossingScore:
    """Agreement between detected and true crossings.

    ``found`` of ``line_crossings`` true crossings have an event, and ``labels_right`` of these have the right label.
    ``false`` events have no true crossing.
    """

    line_crossings: int
    found: int
    false: int
    labels_right: int


def score(
    truth: Iterable[LineCrossing], events: Iterable[LineCrossing], tolerance_ns: int = TOLERANCE_NS
) -> CrossingScore:
    """Match events with true crossings one to one: same camera and direction, nearest in time first."""
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
    """Pair crossings with events, both sorted by time. Compare only pairs within the tolerance, to save memory."""
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
