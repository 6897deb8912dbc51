"""Plan of a replay: which dead letters to send, and on which lane. Pure.

An engine node drops frames that arrive out of order within the same camera, epoch (capture run), lane and pipeline.
Dead letters, however, are stored in the order of their failures, with all lanes and stages in one partition. A replay
therefore opens a new lane (a separate series of frames) for a dead letter that would be out of order on every lane
used so far.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from ingest.contract.identity import FrameId, replay_lane

Unit = Hashable
"""Key of a unit of work, which is replayed at most once. The key is (frame id, pipeline); the pipeline ``""`` stands
for all pipelines. For a record that names no frame, the key is the record's position."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """The facts about a dead letter that the replay plan needs.

    ``position`` is the topic, partition and offset of the record that failed.
    """

    offset: int
    topic: str
    pipeline: str
    frames: tuple[FrameId, ...]
    position: str

    @property
    def units(self) -> frozenset[Unit]:
        """The keys of the units of work that this dead letter would replay."""
        return frozenset((frame, self.pipeline) for frame in self.frames) or frozenset({self.position})


@dataclass(frozen=True, slots=True)
class ReplayReceipt:
    """The proof that a replay sent a dead letter.

    The receipt is written after the dead letter, so its ``offset`` is higher.
    """

    offset: int
    lane: str
    sent: Candidate


@dataclass(frozen=True, slots=True)
class Send:
    """The decision to send a dead letter again on ``lane``."""

    lane: str


@dataclass(frozen=True, slots=True)
class Skip:
    """The decision not to send a dead letter again, with the reason."""

    why: str


REPLAYED = Skip("replayed already")
ENDED = Skip("already has a result")
PARKED_TWICE = Skip("parked twice")
PARTLY_REPLAYED = Skip("some of its frames have been replayed or have a result")


@dataclass
class _LaneState:
    """The state of one lane of a replay.

    ``topics`` maps each camera to the topic to which its frames are sent. ``marks`` maps (camera, epoch, pipeline) to
    the highest sequence number that this replay or an earlier replay sent. ``sent`` holds the keys of the units of
    work that only this replay sent.
    """

    topics: dict[str, str] = field(default_factory=dict)
    marks: dict[tuple[str, int, str], int] = field(default_factory=dict)
    sent: set[Unit] = field(default_factory=set)

    def accepts(self, letter: Candidate) -> bool:
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
    """Decides which dead letters to send and on which lane, one by one in the order of their offsets.

    ``ended`` maps the key of each unit of work that has a result to True if a replay wrote the result, else to False.
    ``receipts`` holds a ReplayReceipt for each dead letter that an earlier replay sent.
    """

    def __init__(self, run: str, receipts: Iterable[ReplayReceipt], ended: Mapping[Unit, bool]) -> None:
        self._name = replay_lane(run)
        self._ended = ended
        self._replayed: dict[Unit, int] = {}
        self._lanes: dict[str, _LaneState] = defaultdict(_LaneState)
        self._sent: set[Unit] = set()
        for receipt in receipts:
            self._replayed |= dict.fromkeys(receipt.sent.units, receipt.offset)
            self._lanes[receipt.lane].carry(receipt.sent)

    def decide(self, letter: Candidate) -> Send | Skip:
        """Decide whether a dead letter is sent again and on which lane, or is skipped. The next decisions assume that
        the caller has carried out this decision."""
        units = letter.units
        done = {unit for unit in units if self._replayed.get(unit, -1) > letter.offset or unit in self._ended}
        if done == units:
            by_replay = any(unit in self._replayed or self._ended.get(unit) for unit in units)
            return REPLAYED if by_replay else ENDED
        if units <= self._sent:
            return PARKED_TWICE
        lane = None if done else self._lane(letter)
        if lane is None:
            return PARTLY_REPLAYED
        self._lanes[lane].carry(letter)
        self._lanes[lane].sent |= units
        self._sent |= units
        return Send(lane)

    def _lane(self, letter: Candidate) -> str | None:
        """Return the first lane on which the frames of a dead letter would be in order, None if no lane is possible.

        If this plan already sent some frames of the dead letter, only the lane used for them is possible.
        """
        number = 1
        while True:
            name = self._name if number == 1 else f"{self._name}.{number}"
            lane = self._lanes[name]
            elsewhere = (letter.units & self._sent) - lane.sent
            if lane.accepts(letter) and not elsewhere:
                return name
            if not lane.topics and not lane.sent:
                return None
            number += 1


def _mark(frame: FrameId, letter: Candidate) -> tuple[str, int, str]:
    return frame.camera, frame.epoch, letter.pipeline
