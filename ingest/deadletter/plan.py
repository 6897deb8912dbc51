"""Which dead letters a replay sends, and on which lane. Pure.

Downstream a mark per camera, epoch, lane and pipeline drops whatever does not come in the order of its number. Dead
letters lie in the order in which things failed, on either lane and at any stage; so a replay opens another lane of
its run wherever a letter would come too late on those that it has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from ingest.contract.identity import FrameId, replay_lane

Key = Hashable
"""What a replay brings back once: a frame in a pipeline (``""`` for all), or a record that names no frame."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A dead letter as far as a replay's plan needs to know it. ``place`` is where the record failed."""

    offset: int
    topic: str
    pipeline: str
    frames: tuple[FrameId, ...]
    place: str

    @property
    def keys(self) -> frozenset[Key]:
        """Return what would be brought back."""
        return frozenset((frame, self.pipeline) for frame in self.frames) or frozenset({self.place})


@dataclass(frozen=True, slots=True)
class ReplayReceipt:
    """That a replay sent a dead letter: ``offset`` is the receipt's own, behind all letters it can be about."""

    offset: int
    lane: str
    sent: Candidate


@dataclass(frozen=True, slots=True)
class Send:
    """Send it on this lane."""

    lane: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Do not send it."""

    why: str


REPLAYED = Skip("replayed already")
ENDED = Skip("has an end already")
TWICE = Skip("parked twice")
PARTLY = Skip("some of its frames have been replayed or have ended")


@dataclass
class _Lane:
    """What one lane has carried: each camera's topic, the last number of each mark, what this plan sent."""

    topics: dict[str, str] = field(default_factory=dict)
    marks: dict[tuple[str, int, str], int] = field(default_factory=dict)
    sent: set[Key] = field(default_factory=set)

    def takes(self, letter: Candidate) -> bool:
        return all(
            self.topics.get(frame.camera, letter.topic) == letter.topic
            and ((frame, letter.pipeline) in self.sent or frame.seq > self.marks.get(_mark(frame, letter), -1))
            for frame in letter.frames
        )

    def carry(self, letter: Candidate) -> None:
        for frame in letter.frames:
            self.topics[frame.camera] = letter.topic
            self.marks[_mark(frame, letter)] = max(frame.seq, self.marks.get(_mark(frame, letter), -1))


class ReplayPlan:
    """Decides letter by letter, in the order of their offsets.

    ``ended`` maps what has a result to whether a replay brought it; receipts are those of all replays so far.
    """

    def __init__(self, run: str, receipts: Iterable[ReplayReceipt], ended: Mapping[Key, bool]) -> None:
        self._name = replay_lane(run)
        self._ended = ended
        self._replayed: dict[Key, int] = {}
        self._lanes: dict[str, _Lane] = defaultdict(_Lane)
        self._sent: set[Key] = set()
        for receipt in receipts:
            self._replayed |= dict.fromkeys(receipt.sent.keys, receipt.offset)
            self._lanes[receipt.lane].carry(receipt.sent)

    def decide(self, letter: Candidate) -> Send | Skip:
        """Return what to do with a letter, and take it as done."""
        keys = letter.keys
        old = {key for key in keys if self._replayed.get(key, -1) > letter.offset or key in self._ended}
        if old == keys:
            by_replay = any(key in self._replayed or self._ended.get(key) for key in keys)
            return REPLAYED if by_replay else ENDED
        if keys <= self._sent:
            return TWICE
        lane = None if old else self._lane(letter)
        if lane is None:
            return PARTLY
        self._lanes[lane].carry(letter)
        self._lanes[lane].sent |= keys
        self._sent |= keys
        return Send(lane)

    def _lane(self, letter: Candidate) -> str | None:
        """Return the first lane that takes a letter; what was sent in part can go on only where it was sent."""
        number = 1
        while True:
            name = self._name if number == 1 else f"{self._name}.{number}"
            lane = self._lanes[name]
            elsewhere = (letter.keys & self._sent) - lane.sent
            if lane.takes(letter) and not elsewhere:
                return name
            if not lane.topics and not lane.sent:
                return None
            number += 1


def _mark(frame: FrameId, letter: Candidate) -> tuple[str, int, str]:
    return frame.camera, frame.epoch, letter.pipeline
