"""The ledger: the captured, withheld and delivered frames of each epoch, and the states of delivered frames. Pure.

Millions of frames have equal states. To save memory, equal states are one shared object, and each frame has a
reference to its state object. ``ingest.ledger.balance`` computes the balance.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ingest.contract.identity import FrameId, is_replay
from ingest.contract.records import EpochEnd, Waiting, WithheldInterval
from ingest.ledger.intervals import Cover, Interval

ALL_PIPELINES = ""
"""Pipeline name in a dead letter that concerns all pipelines of a frame."""
DEAD = "dead"

NOTHING_RETAINED = (sys.maxsize, 0)
"""Start of a camera without a retained frame: a pair above every (epoch, seq)."""


@dataclass(frozen=True, slots=True)
class FrameEnd:
    """One final state of a frame: ``classified``, ``empty``, ``shed`` or ``dead``, in one pipeline, on one lane."""

    outcome: str
    pipeline: str
    lane: str
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class FrameState:
    """The lanes that a frame was delivered on, the pipelines it was routed to, and its final states.

    ``ends`` counts how often each final state was written. A dead letter counts once, because a service may write it
    again after a crash. Only ``Ledger`` creates states, one object per value, so states are compared by identity.
    """

    lanes: frozenset[str] = frozenset()
    pipelines: frozenset[str] = frozenset()
    ends: Mapping[FrameEnd, int] = field(default_factory=dict)


@dataclass(slots=True)
class EpochLedger:
    """The ledger of one epoch of a camera: the cover by withheld and delivered frames, and each frame's state.

    ``withheld`` counts withheld frames by reason. ``repeats`` counts deliveries of a frame that was already on the
    same lane. Such deliveries are normal after a crash of the agent.
    """

    cover: Cover = field(default_factory=Cover)
    withheld: Counter[str] = field(default_factory=Counter)
    frames: dict[int, FrameState] = field(default_factory=dict)
    repeats: int = 0
    end: EpochEnd | None = None
    reported: int = -1
    """Highest sequence number that a heartbeat reported as captured. A lower bound of the captured frames, because
    heartbeats may be lost."""
    heard: tuple[int, int] | None = None
    """Offsets on ``status`` of the first and last heartbeats that report this epoch as the current one."""
    status_accounts: set[tuple[int, int, tuple[tuple[str, int], ...]]] = field(default_factory=set)
    """Intervals of withheld frames from ``status``, kept to recognise an interval that is sent again."""
    runs: set[Interval] = field(default_factory=set)
    """Delivered runs of readings, if the ledger is of a sensor."""

    @property
    def last(self) -> int:
        """Highest number known to have been captured, -1 for none."""
        return max(self.cover.last, self.end.last if self.end else -1)

    def began_after(self, other: EpochLedger) -> bool | None:
        """Return whether this epoch began after the last heartbeat of another, None without heartbeats of both."""
        return self.heard[0] > other.heard[1] if self.heard and other.heard else None


class Ledger:
    """All facts that the topics contain about captured frames. Before the cut, records may be added in any order.

    ``readings`` is a separate ledger of the sensors, in which a sensor takes the place of a camera. Readings are
    delivered in runs, and no pipeline processes readings.
    """

    def __init__(self, readings: Ledger | None = None) -> None:
        self.readings = readings
        self.epochs: dict[tuple[str, int], EpochLedger] = defaultdict(EpochLedger)
        self.starts: dict[str, tuple[int, int]] = {}
        """The (epoch, seq) from which a camera is balanced, for each camera of which retention has deleted frames."""
        self.expired_unread: dict[tuple[str, str, int], Cover] = defaultdict(Cover)
        """Offsets that retention deleted before a consumer group read them, by group, topic and partition."""
        self._waiting: dict[str, tuple[int, list[Waiting]]] = {}
        self._cut: dict[tuple[str, int], int] | None = None
        self._unidentified: set[object] = set()
        self._states: dict[tuple[object, ...], FrameState] = {}
        self._deliveries: dict[tuple[FrameState, str], FrameState] = {}
        self._endings: dict[tuple[FrameState, FrameEnd, frozenset[str]], FrameState] = {}
        self._new = self._state(frozenset(), frozenset(), {})

    @property
    def unidentified(self) -> int:
        """Number of dead letters that name no frame."""
        return len(self._unidentified)

    def start_at(self, camera: str, epoch: int, seq: int) -> None:
        """Balance a camera from this frame on, because retention has deleted earlier frames."""
        self.starts[camera] = (epoch, seq)

    def leave_out(self, camera: str) -> None:
        """Exclude a camera that cannot be balanced, because retention may have deleted all its frames."""
        self.starts[camera] = NOTHING_RETAINED

    def cut(self) -> None:
        """Fix the set of frames to balance.

        After the cut, the ledger adds only records that fill a hole, and final states of frames.
        """
        self._cut = {key: entries.last for key, entries in self.epochs.items()}
        if self.readings:
            self.readings.cut()

    def add_frame(self, frame: FrameId, lane: str, account: WithheldInterval | None) -> None:
        """Add a frame that is in the log, and the interval of the frames withheld before it.

        The same frame on the same lane is a repeat, not an error. The same frame on another lane is a duplicate. A
        frame that a replay sends again does not count as delivered again.
        """
        if is_replay(lane) or not self._is_wanted(frame.camera, frame.epoch, frame.seq):
            return
        entries = self.epochs[frame.camera, frame.epoch]
        state = entries.frames.get(frame.seq, self._new)
        if lane in state.lanes:
            entries.repeats += 1
            return
        entries.frames[frame.seq] = self._after_delivery(state, lane)
        if account:
            self._withhold(entries, account)
        entries.cover.add(frame.seq, frame.seq)

    def add_readings(self, first: FrameId, last: int, account: WithheldInterval | None) -> None:
        """Add a run of readings that is in the log; ``first.camera`` is the sensor's name.

        A second, identical run counts as a repeat.
        """
        if not self._is_wanted(first.camera, first.epoch, last, first.seq):
            return
        entries = self.epochs[first.camera, first.epoch]
        if (first.seq, last) in entries.runs:
            entries.repeats += last - first.seq + 1
            return
        entries.runs.add((first.seq, last))
        if account:
            self._withhold(entries, account)
        entries.cover.add(first.seq, last)

    def add_account(self, account: WithheldInterval) -> None:
        """Add an interval of withheld frames from ``status``. A second, identical interval is ignored."""
        if not self._is_wanted(account.camera, account.epoch, account.last, account.first):
            return
        entries = self.epochs[account.camera, account.epoch]
        key = (account.first, account.last, tuple(sorted(account.counts.items())))
        if key not in entries.status_accounts:
            entries.status_accounts.add(key)
            self._withhold(entries, account)

    def add_epoch_end(self, end: EpochEnd) -> None:
        """Add the end of an epoch.

        A clean end wins over an unclean end, because an agent may be killed after a clean end. The end of an epoch
        counts even if it was written after the cut. The next audit covers frames after the cut.
        """
        if self._cut is not None:
            cut = self._cut.get((end.camera, end.epoch))
            if cut is None:
                return
            end = end.model_copy(update={"last": min(end.last, cut), "reported": min(end.reported, cut)})
        if not self._is_wanted(end.camera, end.epoch, max(0, end.last)):
            return
        entries = self.epochs[end.camera, end.epoch]
        if (before := entries.end) is not None:
            latest = {"last": max(before.last, end.last), "reported": max(before.reported, end.reported)}
            end = end.model_copy(update={**latest, "clean": before.clean or end.clean})
        entries.end = end

    def add_progress(self, camera: str, epoch: int, last: int, offset: int) -> None:
        """Add the highest captured number that a heartbeat reported. Frames up to this number may have been withheld.

        ``offset`` is the heartbeat's offset on ``status``.
        """
        if self._cut is None and self._is_wanted(camera, epoch, max(0, last)):
            entries = self.epochs[camera, epoch]
            entries.reported = max(entries.reported, last)
            first, latest = entries.heard or (offset, offset)
            entries.heard = min(first, offset), max(latest, offset)

    def set_spooled(self, agent: str, at_ns: int, waiting: Iterable[Waiting]) -> None:
        """Replace the known contents of an agent's spool, unless a newer report is known."""
        if at_ns >= self._waiting.get(agent, (0, []))[0]:
            self._waiting[agent] = at_ns, list(waiting)

    def spooled(self, camera: str, epoch: int) -> list[Interval]:
        """Return the intervals of an epoch in which frames still wait in a spool."""
        everywhere = (each for _, waiting in self._waiting.values() for each in waiting)
        return [(each.first, each.last) for each in everywhere if (each.camera, each.epoch) == (camera, epoch)]

    def add_frame_end(self, frame: FrameId, end: FrameEnd, pipelines: frozenset[str] = frozenset()) -> None:
        """Add one final state of a frame. ``pipelines`` are all pipelines of the frame, if the record names them."""
        if self._is_wanted(frame.camera, frame.epoch, frame.seq):
            frames = self.epochs[frame.camera, frame.epoch].frames
            frames[frame.seq] = self._after_end(frames.get(frame.seq, self._new), end, pipelines)

    def add_unidentified(self, position: object) -> None:
        """Add a dead letter that names no frame. ``position`` is the position of the failed record in the log."""
        self._unidentified.add(position)

    def _is_wanted(self, camera: str, epoch: int, seq: int, first: int | None = None) -> bool:
        if (epoch, seq) < self.starts.get(camera, (0, 0)):
            return False
        if self._cut is None:
            return True
        return (seq if first is None else first) <= self._cut.get((camera, epoch), -1)

    def _withhold(self, entries: EpochLedger, account: WithheldInterval) -> None:
        entries.cover.add(account.first, account.last)
        entries.withheld.update({reason: count for reason, count in account.counts.items() if count})

    def _after_delivery(self, state: FrameState, lane: str) -> FrameState:
        after = self._deliveries.get((state, lane))
        if after is None:
            after = self._state(state.lanes | {lane}, state.pipelines, state.ends)
            self._deliveries[state, lane] = after
        return after

    def _after_end(self, state: FrameState, end: FrameEnd, pipelines: frozenset[str]) -> FrameState:
        after = self._endings.get((state, end, pipelines))
        if after is None:
            times = 1 if end.outcome == DEAD else state.ends.get(end, 0) + 1
            after = self._state(state.lanes, state.pipelines | pipelines, {**state.ends, end: times})
            self._endings[state, end, pipelines] = after
        return after

    def _state(self, lanes: frozenset[str], pipelines: frozenset[str], ends: Mapping[FrameEnd, int]) -> FrameState:
        key = (lanes, pipelines, frozenset(ends.items()))
        return self._states.setdefault(key, FrameState(lanes, pipelines, ends))
