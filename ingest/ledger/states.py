"""The ledger: the captured, withheld and delivered frames of each epoch (capture run), and the states of delivered
frames. Pure.

Millions of frames have equal states. To save memory, frames with equal states share one FrameState object.
``ingest.ledger.balance`` counts the frames of a ledger by outcome.
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
"""First frame to audit, for a camera without a retained frame: a pair higher than every (epoch, sequence number)."""


@dataclass(frozen=True, slots=True)
class FrameEnd:
    """One final state of a frame: ``classified``, ``empty``, ``shed`` or ``dead``, in one pipeline, on one lane."""

    outcome: str
    pipeline: str
    lane: str
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class FrameState:
    """The state of a frame: the lanes it was delivered on, the pipelines it was routed to, and its final states.

    ``ends`` counts how often each final state was written. A dead letter counts only once, because a service may
    write the same dead letter again after a crash. FrameState objects are compared by identity, because only
    ``Ledger`` creates them, and equal states are one object.
    """

    lanes: frozenset[str] = frozenset()
    pipelines: frozenset[str] = frozenset()
    ends: Mapping[FrameEnd, int] = field(default_factory=dict)


HOUR_NS = 3_600 * 10**9


@dataclass(slots=True)
class HourMarks:
    """The hours in which the frames of an epoch (capture run) were captured. Hours are counted since 1970, in UTC.

    ``last`` has, by hour, the highest sequence number that a record of the hour names. ``withheld`` has, by hour, the
    number of frames that were withheld for each reason.
    """

    last: dict[int, int] = field(default_factory=dict)
    withheld: defaultdict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def note(self, seq: int, at_ns: int) -> int:
        """Note that a frame was captured at a time in Unix ns, and return the frame's hour since 1970."""
        hour = at_ns // HOUR_NS
        if seq > self.last.get(hour, -1):
            self.last[hour] = seq
        return hour


@dataclass(slots=True)
class EpochLedger:
    """The ledger of one epoch (capture run) of a camera.

    ``cover`` holds the sequence numbers of withheld and delivered frames, and ``frames`` the state of each frame by
    sequence number. ``withheld`` counts withheld frames by reason. ``repeats`` counts deliveries of frames that had
    already been delivered on the same lane. After a crash, an agent normally delivers some frames a second time.
    """

    cover: Cover = field(default_factory=Cover)
    withheld: Counter[str] = field(default_factory=Counter)
    frames: dict[int, FrameState] = field(default_factory=dict)
    repeats: int = 0
    end: EpochEnd | None = None
    reported: int = -1
    """Highest sequence number that a heartbeat reported as captured. The agent may have captured more frames, because
    heartbeats may be lost."""
    heard: tuple[int, int] | None = None
    """Offsets in the topic ``status`` of the first and the last heartbeat that reported this epoch as the camera's
    current epoch."""
    status_accounts: set[tuple[int, int, tuple[tuple[str, int], ...]]] = field(default_factory=set)
    """Withheld intervals that heartbeats reported, as (first, last, counts by reason), to recognise an interval that
    is reported again."""
    runs: set[Interval] = field(default_factory=set)
    """Intervals of delivered readings (first and last sequence number), used only for sensors."""
    hours: HourMarks = field(default_factory=HourMarks)

    @property
    def last(self) -> int:
        """Highest sequence number that was withheld, delivered or named by the epoch's end, -1 if there is none."""
        return max(self.cover.last, self.end.last if self.end else -1)

    def began_after(self, other: EpochLedger) -> bool | None:
        """Return whether this epoch (capture run) began after the last heartbeat of another epoch.

        Return None if one of the two epochs has no heartbeat.
        """
        return self.heard[0] > other.heard[1] if self.heard and other.heard else None


class Ledger:
    """All facts that the topics contain about captured frames.

    Until ``cut`` is called, records may be added in any order. ``readings`` is a separate ledger for sensors, in
    which each sensor is treated like a camera. A record of readings delivers several readings at once, and no
    pipeline processes readings.
    """

    def __init__(self, readings: Ledger | None = None) -> None:
        self.readings = readings
        self.epochs: dict[tuple[str, int], EpochLedger] = defaultdict(EpochLedger)
        self.starts: dict[str, tuple[int, int]] = {}
        """First frame to audit, (epoch, sequence number), for each camera of which retention has deleted frames."""
        self.expired_unread: dict[tuple[str, str, int], Cover] = defaultdict(Cover)
        """Offsets that retention deleted before a consumer group read the records, by (group, topic, partition)."""
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
        """Audit a camera only from the given frame on, because retention has deleted earlier frames."""
        self.starts[camera] = (epoch, seq)

    def leave_out(self, camera: str) -> None:
        """Exclude a camera from the audit, because retention may have deleted all its frames."""
        self.starts[camera] = NOTHING_RETAINED

    def cut(self) -> None:
        """From now on, let the ledger ignore frames and readings with a higher sequence number than any it has seen.

        The audit covers, in each epoch (capture run), all numbers up to the highest number known now. After this
        call, the ledger ignores records about higher sequence numbers.
        """
        self._cut = {key: entries.last for key, entries in self.epochs.items()}
        if self.readings:
            self.readings.cut()

    def add_frame(self, frame: FrameId, lane: str, account: WithheldInterval | None, at_ns: int = 0) -> None:
        """Add a delivered frame and the interval of the frames withheld just before the frame. ``at_ns`` is the
        approximate capture time of the frame, in Unix ns.

        A frame that is delivered twice on the same lane is a repeat, which is not an error. A frame that is delivered
        on both lanes is a duplicate, which is an error. A frame on a replay's lane is ignored, because a replay sends
        frames that were delivered before.
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
            self._withhold(entries, account, at_ns)
        entries.hours.note(frame.seq, at_ns)
        entries.cover.add(frame.seq, frame.seq)

    def add_readings(self, first: FrameId, last: int, account: WithheldInterval | None) -> None:
        """Add the delivered readings from ``first`` to the sequence number ``last``.

        ``first.camera`` is the sensor's name. Readings that are added a second time with the same first and last
        number count as repeats.
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

    def add_account(self, account: WithheldInterval, at_ns: int = 0) -> None:
        """Add an interval of withheld frames that a heartbeat reported at a time in Unix ns.

        An identical interval that was added before is ignored.
        """
        if not self._is_wanted(account.camera, account.epoch, account.last, account.first):
            return
        entries = self.epochs[account.camera, account.epoch]
        key = (account.first, account.last, tuple(sorted(account.counts.items())))
        if key not in entries.status_accounts:
            entries.status_accounts.add(key)
            self._withhold(entries, account, at_ns)

    def add_epoch_end(self, end: EpochEnd) -> None:
        """Add the end of an epoch (capture run).

        If an epoch has a clean and an unclean end, the clean end counts, because an agent may be killed after it has
        ended the epoch. The end of an epoch counts even if it is added after the call of ``cut``. Frames captured
        after the call of ``cut`` are left to the next audit.
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
        """Add the highest captured sequence number that a heartbeat reported for an epoch (capture run).

        Frames with numbers up to ``last`` that were not delivered may have been withheld. ``offset`` is the
        heartbeat's offset in the topic ``status``.
        """
        if self._cut is None and self._is_wanted(camera, epoch, max(0, last)):
            entries = self.epochs[camera, epoch]
            entries.reported = max(entries.reported, last)
            first, latest = entries.heard or (offset, offset)
            entries.heard = min(first, offset), max(latest, offset)

    def set_spooled(self, agent: str, at_ns: int, waiting: Iterable[Waiting]) -> None:
        """Replace the known contents of an agent's spool by a heartbeat's report, unless a newer report is known."""
        if at_ns >= self._waiting.get(agent, (0, []))[0]:
            self._waiting[agent] = at_ns, list(waiting)

    def spooled(self, camera: str, epoch: int) -> list[Interval]:
        """Return the intervals of sequence numbers of an epoch (capture run) that agents report as still in their
        spools."""
        everywhere = (each for _, waiting in self._waiting.values() for each in waiting)
        return [(each.first, each.last) for each in everywhere if (each.camera, each.epoch) == (camera, epoch)]

    def add_frame_end(self, frame: FrameId, end: FrameEnd, pipelines: frozenset[str] = frozenset()) -> None:
        """Add one final state of a frame.

        ``pipelines`` holds all pipelines that the frame was routed to, or is empty if the record does not name them.
        """
        if self._is_wanted(frame.camera, frame.epoch, frame.seq):
            frames = self.epochs[frame.camera, frame.epoch].frames
            frames[frame.seq] = self._after_end(frames.get(frame.seq, self._new), end, pipelines)

    def add_unidentified(self, position: object) -> None:
        """Add a dead letter that names no frame.

        ``position`` is the topic, partition and offset of the record that failed.
        """
        self._unidentified.add(position)

    def _is_wanted(self, camera: str, epoch: int, seq: int, first: int | None = None) -> bool:
        if (epoch, seq) < self.starts.get(camera, (0, 0)):
            return False
        if self._cut is None:
            return True
        return (seq if first is None else first) <= self._cut.get((camera, epoch), -1)

    def _withhold(self, entries: EpochLedger, account: WithheldInterval, at_ns: int = 0) -> None:
        entries.cover.add(account.first, account.last)
        counts = {reason: count for reason, count in account.counts.items() if count}
        entries.withheld.update(counts)
        entries.hours.withheld[entries.hours.note(account.last, at_ns)].update(counts)

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
