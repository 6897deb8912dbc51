"""The ledger's ledger: what was captured, withheld and delivered, and the states that delivered frames are in. Pure.

Millions of frames end alike, so a frame's entry is one reference to a state that all frames in it share; what happens
to a frame moves it to another state. ``ingest.ledger.balance`` draws the balance.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ingest.contract.identity import FrameId, is_replay
from ingest.contract.records import Account, EpochEnd, Waiting
from ingest.ledger.intervals import Cover, Interval

ALL_PIPELINES = ""
"""The pipeline of a dead letter that concerns a frame as a whole."""
DEAD = "dead"

NOTHING_RETAINED = (sys.maxsize, 0)
"""A beginning that no frame reaches."""


@dataclass(frozen=True, slots=True)
class FrameEnd:
    """One end of one frame: ``classified``, ``empty``, ``shed`` or ``dead``, in one pipeline, on one lane."""

    outcome: str
    pipeline: str
    lane: str
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class FrameState:
    """What is known of a frame: the lanes it was delivered on, the pipelines it was routed to, and its ends.

    ``ends`` says how often each was written; dead letters count once, since parking may be repeated. States are made
    by ``Ledger`` only, one of each kind, and so compared by identity.
    """

    lanes: frozenset[str] = frozenset()
    pipelines: frozenset[str] = frozenset()
    ends: Mapping[FrameEnd, int] = field(default_factory=dict)


@dataclass(slots=True)
class EpochLedger:
    """One epoch of one camera: a cover by accounts and delivered frames, why frames were withheld, frames' states.

    ``repeats`` are deliveries of a frame that its lane had already: normal after an agent's crash.
    """

    cover: Cover = field(default_factory=Cover)
    withheld: Counter[str] = field(default_factory=Counter)
    frames: dict[int, FrameState] = field(default_factory=dict)
    repeats: int = 0
    end: EpochEnd | None = None
    told: int = -1
    """The highest number that a heartbeat said was captured. Only a hint: heartbeats are not promised to arrive."""
    status_accounts: set[tuple[int, int, tuple[tuple[str, int], ...]]] = field(default_factory=set)
    """Those that ``status`` told, to recognise one that is told again."""
    runs: set[Interval] = field(default_factory=set)
    """Of a sensor: the runs of readings that were delivered."""

    @property
    def last(self) -> int:
        """The last number that is known to have been given, -1 when none was."""
        return max(self.cover.last, self.end.last if self.end else -1)


class Ledger:
    """Everything that the topics say of the frames. Before the cut, records may be entered in any order.

    Sensors have ledger of their own, ``readings``, where they are called cameras: readings are delivered in runs, and
    nothing is asked of them from there on.
    """

    def __init__(self, readings: Ledger | None = None) -> None:
        self.readings = readings
        self.epochs: dict[tuple[str, int], EpochLedger] = defaultdict(EpochLedger)
        self.beginnings: dict[str, tuple[int, int]] = {}
        """Per camera that retention has cut into, the (epoch, seq) from which on it is balanced."""
        self._waiting: dict[str, tuple[int, list[Waiting]]] = {}
        self._cut: dict[tuple[str, int], int] | None = None
        self._unidentified: set[object] = set()
        self._states: dict[tuple[object, ...], FrameState] = {}
        self._deliveries: dict[tuple[FrameState, str], FrameState] = {}
        self._endings: dict[tuple[FrameState, FrameEnd, frozenset[str]], FrameState] = {}
        self._new = self._state(frozenset(), frozenset(), {})

    @property
    def unidentified(self) -> int:
        """Dead letters that do not say which frame they were."""
        return len(self._unidentified)

    def begin(self, camera: str, epoch: int, seq: int) -> None:
        """Say that what is left of a camera begins there: retention has taken frames before it."""
        self.beginnings[camera] = (epoch, seq)

    def leave_out(self, camera: str) -> None:
        """Say that retention has taken so much of a camera that nothing of it can be balanced."""
        self.beginnings[camera] = NOTHING_RETAINED

    def cut(self) -> None:
        """Fix what is to be balanced. From now on only what fills a hole, and ends of frames, are entered."""
        self._cut = {key: book.last for key, book in self.epochs.items()}
        if self.readings:
            self.readings.cut()

    def delivered(self, frame: FrameId, lane: str, account: Account | None) -> None:
        """Enter a frame that is in the log.

        The same one again on the same lane is a repeat, no error; on another lane it is covered twice. A replay
        offers again what was delivered before: it is no delivery of its own.
        """
        if is_replay(lane) or not self._is_wanted(frame.camera, frame.epoch, frame.seq):
            return
        book = self.epochs[frame.camera, frame.epoch]
        state = book.frames.get(frame.seq, self._new)
        if lane in state.lanes:
            book.repeats += 1
            return
        book.frames[frame.seq] = self._after_delivery(state, lane)
        if account:
            self._withhold(book, account)
        book.cover.add(frame.seq, frame.seq)

    def delivered_run(self, first: FrameId, last: int, account: Account | None) -> None:
        """Enter a run of readings that is in the log; ``first.camera`` is the sensor's name.

        The very same run again is a repeat.
        """
        if not self._is_wanted(first.camera, first.epoch, last, first.seq):
            return
        book = self.epochs[first.camera, first.epoch]
        if (first.seq, last) in book.runs:
            book.repeats += last - first.seq + 1
            return
        book.runs.add((first.seq, last))
        if account:
            self._withhold(book, account)
        book.cover.add(first.seq, last)

    def account(self, account: Account) -> None:
        """Enter an interval account from ``status``. The very same account again is a repeat."""
        if not self._is_wanted(account.camera, account.epoch, account.last, account.first):
            return
        book = self.epochs[account.camera, account.epoch]
        key = (account.first, account.last, tuple(sorted(account.counts.items())))
        if key not in book.status_accounts:
            book.status_accounts.add(key)
            self._withhold(book, account)

    def ended(self, end: EpochEnd) -> None:
        """Enter the end of an epoch. Of two the better one holds: an agent may be killed just after it closed one.

        After the cut it may still close an epoch, whose frames after the cut are left to the next audit.
        """
        if self._cut is not None:
            cut = self._cut.get((end.camera, end.epoch))
            if cut is None:
                return
            end = end.model_copy(update={"last": min(end.last, cut), "told": min(end.told, cut)})
        if not self._is_wanted(end.camera, end.epoch, max(0, end.last)):
            return
        book = self.epochs[end.camera, end.epoch]
        if (before := book.end) is not None:
            latest = {"last": max(before.last, end.last), "told": max(before.told, end.told)}
            end = end.model_copy(update={**latest, "clean": before.clean or end.clean})
        book.end = end

    def told(self, camera: str, epoch: int, last: int) -> None:
        """Enter how far an epoch had come when a heartbeat told of it. That much may not have been kept."""
        if self._cut is None and self._is_wanted(camera, epoch, max(0, last)):
            book = self.epochs[camera, epoch]
            book.told = max(book.told, last)

    def waits(self, agent: str, at_ns: int, waiting: Iterable[Waiting]) -> None:
        """Enter what an agent said at that time to have in its spool: all of it, so its newest word holds."""
        if at_ns >= self._waiting.get(agent, (0, []))[0]:
            self._waiting[agent] = at_ns, list(waiting)

    def waiting(self, camera: str, epoch: int) -> list[Interval]:
        """Return the intervals of an epoch in which frames still wait in a spool."""
        told = (each for _, waiting in self._waiting.values() for each in waiting)
        return [(each.first, each.last) for each in told if (each.camera, each.epoch) == (camera, epoch)]

    def finished(self, frame: FrameId, end: FrameEnd, pipelines: frozenset[str] = frozenset()) -> None:
        """Enter one end of a frame; ``pipelines`` are all that it was routed to, where the record says so."""
        if self._is_wanted(frame.camera, frame.epoch, frame.seq):
            frames = self.epochs[frame.camera, frame.epoch].frames
            frames[frame.seq] = self._after_end(frames.get(frame.seq, self._new), end, pipelines)

    def unnamed(self, place: object) -> None:
        """Enter a dead letter that does not say which frame it was. ``place`` is where its record was read."""
        self._unidentified.add(place)

    def _is_wanted(self, camera: str, epoch: int, seq: int, first: int | None = None) -> bool:
        if (epoch, seq) < self.beginnings.get(camera, (0, 0)):
            return False
        if self._cut is None:
            return True
        return (seq if first is None else first) <= self._cut.get((camera, epoch), -1)

    def _withhold(self, book: EpochLedger, account: Account) -> None:
        book.cover.add(account.first, account.last)
        book.withheld.update({reason: count for reason, count in account.counts.items() if count})

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
