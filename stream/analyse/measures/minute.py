"""The sums of one measure in each minute, collected frame by frame until the next minute begins. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ingest.contract.records.measure import MinuteTally
from stream.analyse.rule import Scene
from stream.analyse.tracking.tracker import LOST_S

MINUTE_NS = 60 * 10**9
MAX_SUMS = 2_000
"""Maximum number of sums in one minute. A sum has the label of the counted objects in its name, and a record with
more than ``MAX_KEYS`` names is refused. So without a limit, results with ever new labels would make dead letters of
all later results of the camera."""
MAX_BETWEEN = 720
"""Maximum number of minutes without any classified frame that get records, for a camera that sends no frame while
nothing moves. A gap of more minutes probably comes from a step of the camera's clock."""


@dataclass
class Sums:
    """Sums of one measure during one minute."""

    sums: Counter[str] = field(default_factory=Counter)
    peaks: dict[str, float] = field(default_factory=dict)
    histograms: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    observed_s: float = 0.0

    def add(self, name: str, value: float = 1.0) -> None:
        """Add a value to a sum. Ignore a new sum if there are already ``MAX_SUMS`` sums."""
        if name in self.sums or len(self.sums) < MAX_SUMS:
            self.sums[name] += value  # type: ignore[assignment]

    def peak(self, name: str, value: float) -> None:
        """Note a value; the minute keeps only the largest value of each name."""
        self.peaks[name] = max(self.peaks.get(name, value), value)

    def sort_in(self, name: str, value: float, bounds: Iterable[float]) -> None:
        """Count a value in the histogram ``name``, whose bins begin at ``bounds``, in ascending order."""
        lower = max((bound for bound in bounds if bound <= value), default=0.0)
        self.histograms[name][f"{lower:g}"] += 1

    def tally(self, closed_by: str) -> MinuteTally:
        """Return the sums of the minute as a MinuteTally."""
        return MinuteTally(
            sums={name: round(value, 6) for name, value in self.sums.items()},
            peaks=dict(self.peaks),
            histograms={name: dict(counts) for name, counts in self.histograms.items()},
            observed_s=round(self.observed_s, 6),
            closed_by=(closed_by,),
        )


@dataclass(frozen=True, slots=True)
class ClosedMinute:
    """The tally of one measure over one minute, or over a part of the minute."""

    measure: str
    start_ns: int
    tally: MinuteTally


class MinuteClock:
    """The current minute of one measure by the camera's clock, and the share of it that was observed.

    A frame from an earlier minute counts toward the current minute, because results of two clocks may alternate. Two
    classified frames in a row that are more than a minute before the current minute mean that the camera's clock was
    set back. The second frame that is so early closes the current minute, and begins the minute that the camera's
    clock shows.
    """

    def __init__(self, measure: str) -> None:
        self._measure = measure
        self._start_ns: int | None = None
        self._last: Scene | None = None
        self.sums = Sums()

    def advance(self, scene: Scene, elapsed: Callable[[float], None]) -> list[ClosedMinute]:
        """Begin the minute of the next frame, and return the minutes that this frame closes, oldest first.

        The returned minutes are the current minute, and the whole minutes without motion between the previous frame
        and this frame. The time since the previous classified frame counts as observed, except gaps in which frames
        are missing. The observed time between two frames is divided among the minutes that it covers. Before a minute
        is closed, ``elapsed`` is called with the seconds of this minute that the camera was observed.
        """
        start_ns = scene.captured_ns // MINUTE_NS * MINUTE_NS
        if self._start_ns is None or self._last is None:
            self._start_ns, self._last = start_ns, scene
            return []
        observed_s = self._observed_s(scene)
        before_ns = self._last.captured_ns
        self._last = scene
        if start_ns <= self._start_ns:
            self._pass(observed_s, elapsed)
            if max(scene.captured_ns, before_ns) >= self._start_ns - MINUTE_NS:
                return []
            closed = self.close(scene.frame)
            self._start_ns = start_ns
            return closed
        per_ns = observed_s / (scene.captured_ns - before_ns)
        self._pass(per_ns * max(self._start_ns + MINUTE_NS - before_ns, 0), elapsed)
        closed = self.close(scene.frame)
        between = range(self._start_ns + MINUTE_NS, start_ns, MINUTE_NS)
        for self._start_ns in between if per_ns > 0.0 and len(between) <= MAX_BETWEEN else ():
            self._pass(per_ns * MINUTE_NS, elapsed)
            closed += self.close(scene.frame)
        self._start_ns = start_ns
        self._pass(per_ns * min(scene.captured_ns - start_ns, scene.captured_ns - before_ns), elapsed)
        return closed

    def _pass(self, observed_s: float, elapsed: Callable[[float], None]) -> None:
        self.sums.observed_s += observed_s
        elapsed(observed_s)

    def close(self, closed_by: str) -> list[ClosedMinute]:
        """Close the current minute of the measure, and return its values."""
        if self._start_ns is None:
            return []
        closed = ClosedMinute(self._measure, self._start_ns, self.sums.tally(closed_by))
        self.sums = Sums()
        return [closed]

    @property
    def last_frame(self) -> str:
        """Name of the last frame; empty before the first frame."""
        return self._last.frame if self._last else ""

    def _observed_s(self, scene: Scene) -> float:
        """Return the seconds since the previous classified frame, without a gap in which frames are missing."""
        if self._last is None:
            return 0.0
        passed_s = (scene.at_ns - self._last.at_ns) / 1e9
        return max(passed_s - scene.gap_s, 0.0) if scene.gap_s > LOST_S else passed_s


def merged(parts: Mapping[str, MinuteTally]) -> MinuteTally:
    """Return the sum of tallies."""
    found = Sums()
    for part in parts.values():
        for name, value in part.sums.items():
            found.add(name, value)
        for name, value in part.peaks.items():
            found.peak(name, value)
        for name, counts in part.histograms.items():
            found.histograms[name].update(counts)
        found.observed_s += part.observed_s
    return found.tally("")
