"""The join of a camera's candidate events with the condition of a sensor, in event time. Pure.

The events depend only on the signals and their order in the log. All signals of a rule are in one partition, so every
owner of the partition sees them in the same order.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from ingest.contract.identity import is_late, is_replay
from ingest.contract.records import Event
from ingest.contract.records.signal import Change, JoinCandidate, JoinSignal
from stream.join.rule import KEPT_S, JoinRule

MAX_PENDING = 1000
"""Maximum number of signals that wait for the readings of their time. If more signals wait, the oldest waiting signal
is decided with the readings known so far."""
MAX_SUBJECTS = 1000
"""Maximum number of tracks whose cooldown is remembered."""
MAX_LANES = 64
"""Maximum number of lanes (live, late and one or more for each replay) of which a rule keeps the state. Each replay
has lanes of its own, and no record says that the replay has ended. If a join has more lanes, it drops the oldest lane
of a replay."""
MAX_EPOCHS = 64
"""Maximum number of epochs (capture runs) of one camera or sensor whose last sequence number is remembered."""


class ConditionTimeline:
    """When the condition of a sensor held, in the last ``KEPT_S`` before the sensor's last reading.

    A reading counts until the next one, at most for ``valid_s``. If a sensor's clock was set back, its new readings
    replace everything that was known about the time after them.
    """

    def __init__(self, valid_s: float) -> None:
        self._valid_ns = round(valid_s * 1e9)
        self._times_ns: list[int] = []
        self._states: list[bool | None] = []
        """Whether the condition holds from each time in ``_times_ns`` on; None if no reading was valid then."""
        self.read_ns = -1
        """Time of the sensor's last reading; -1 before the first reading."""
        self.through_ns = -1
        """Time in Unix ns up to which the condition is known: of the last reading, or later if the sensor is
        silent."""

    def add(self, changes: tuple[Change, ...], through_ns: int) -> None:
        """Add the readings of one record. ``through_ns`` is the time of the record's last reading."""
        first_ns = changes[0].at_ns
        if self._times_ns and first_ns - self.read_ns > self._valid_ns:
            self._append(self.read_ns + self._valid_ns, None)
        kept = bisect_left(self._times_ns, first_ns)
        del self._times_ns[kept:], self._states[kept:]
        for at_ns, holds in changes:
            self._append(at_ns, holds)
        self.read_ns = self.through_ns = through_ns
        done = bisect_right(self._times_ns, through_ns - round(KEPT_S * 1e9)) - 1
        if done > 0:
            del self._times_ns[:done], self._states[:done]

    def pass_silent(self, through_ns: int) -> None:
        """Note that no reading has come up to ``through_ns``."""
        self.through_ns = max(self.through_ns, through_ns)

    def since_ns(self, at_ns: int) -> int | None:
        """Return the time since which the condition holds at ``at_ns``; None if it does not hold, or is unknown."""
        index = bisect_right(self._times_ns, at_ns) - 1
        if index < 0 or not self._states[index] or at_ns > self.read_ns + self._valid_ns:
            return None
        return self._times_ns[index]

    def _append(self, at_ns: int, state: bool | None) -> None:
        if not self._states or self._states[-1] is not state:
            self._times_ns.append(at_ns)
            self._states.append(state)


class HighWater:
    """Drops signals that were written again after a restart of the stage that writes them."""

    def __init__(self) -> None:
        self._seqs: OrderedDict[int, int] = OrderedDict()

    def admits(self, epoch: int, seq: int) -> bool:
        """Return whether a sequence number is new in its epoch (capture run), and note it."""
        if seq <= self._seqs.get(epoch, -1):
            return False
        self._seqs[epoch] = seq
        if len(self._seqs) > MAX_EPOCHS:
            self._seqs.popitem(last=False)
        return True


@dataclass
class _Lane:
    """The camera's signals of one lane."""

    is_late: bool
    seen: HighWater = field(default_factory=HighWater)
    pending: deque[JoinSignal] = field(default_factory=deque)
    held_ns: tuple[int, int] = (-1, -1)
    """For a camera's lasting condition: its beginning, and the last time at which it held, in Unix ns."""
    reported_ns: int = -1
    """Beginning of the last reported period in which both the camera's and the sensor's conditions held, in Unix ns.
    """
    quiet_ns: OrderedDict[str, int] = field(default_factory=OrderedDict)
    """Time of the last event of each track in Unix ns, from which the cooldown is counted."""


class Joiner:
    """The join of a camera's candidate events with a sensor's readings, for one rule.

    A candidate event is decided once the sensor has sent a reading of the same time or later, or is silent. A
    candidate event of late frames always waits for a reading, because the readings of an outage may come after the
    frames. Each lane (live or late frames, or a replay) is joined by itself.
    """

    def __init__(self, rule: JoinRule) -> None:
        self.rule = rule
        self._timeline = ConditionTimeline(rule.valid_s)
        self._readings = HighWater()
        self._lanes: dict[str, _Lane] = {}

    def step(self, signal: JoinSignal, past: Collection[str] | None = None) -> list[Event]:
        """Process the next signal, and return the candidate events whose outcome the signal decides. While a new
        owner rebuilds the state from past signals, ``past`` has the ids of the events that were written.

        Candidate events of past signals begin no cooldown, unless they were written.
        """
        if signal.sensor is not None and not signal.changes:
            self._timeline.pass_silent(signal.at_ns)
        elif signal.sensor is not None:
            if not self._readings.admits(signal.epoch, signal.seq):
                return []
            self._timeline.add(signal.changes, signal.at_ns)
        else:
            lane = self._lane(signal.lane)
            if not lane.seen.admits(signal.epoch, signal.seq):
                return []
            if signal.candidates:
                lane.pending.append(signal)
        return [event for lane in self._lanes.values() for event in self._decided(lane, past)]

    def _lane(self, name: str) -> _Lane:
        if name not in self._lanes:
            self._lanes[name] = _Lane(is_late(name))
            if len(self._lanes) > MAX_LANES:
                del self._lanes[next(filter(is_replay, self._lanes))]
        return self._lanes[name]

    def _decided(self, lane: _Lane, past: Collection[str] | None) -> Iterator[Event]:
        known_ns = self._timeline.read_ns if lane.is_late else self._timeline.through_ns
        while lane.pending:
            at_ns = lane.pending[0].at_ns
            if at_ns > known_ns and len(lane.pending) <= MAX_PENDING:
                return
            for candidate in lane.pending.popleft().candidates:
                since_ns = self._since_ns(lane, candidate, at_ns)
                if since_ns is not None:
                    yield self._reported(lane, candidate, at_ns, since_ns, past)

    def _since_ns(self, lane: _Lane, candidate: JoinCandidate, at_ns: int) -> int | None:
        """If a candidate event is to be emitted, return the time in Unix ns since which both conditions hold; else
        None.

        Also extend the camera's lasting condition in ``lane`` up to ``at_ns``.
        """
        rule = self.rule
        since_ns = self._timeline.since_ns(at_ns if rule.IS_LASTING else candidate.since_ns)
        if rule.IS_LASTING:
            begin_ns, until_ns = lane.held_ns
            # after a restart, `analyse` may know only the last part of a condition that has held all along
            is_same = candidate.since_ns <= until_ns and begin_ns <= at_ns
            lane.held_ns = (min(begin_ns, candidate.since_ns) if is_same else candidate.since_ns), at_ns
        if since_ns is None or not rule.in_force(at_ns):
            return None
        last_ns = lane.quiet_ns.get(candidate.event.data.track)
        if last_ns is not None and 0 <= at_ns - last_ns < rule.cooldown_s * 1e9:
            return None
        if not rule.IS_LASTING:
            return since_ns if candidate.since_ns - since_ns >= rule.joined_for_s * 1e9 else None
        both_ns = max(lane.held_ns[0], since_ns)
        return both_ns if both_ns != lane.reported_ns and at_ns - both_ns >= rule.joined_for_s * 1e9 else None

    def _reported(
        self, lane: _Lane, candidate: JoinCandidate, at_ns: int, since_ns: int, past: Collection[str] | None
    ) -> Event:
        """Return the event of a candidate, and note that it is reported."""
        rule, data = self.rule, candidate.event.data
        lasted_s = (at_ns - since_ns) / 1e9
        lane.reported_ns = since_ns
        if past is None or candidate.event.id in past:
            lane.quiet_ns[data.track] = at_ns
            lane.quiet_ns.move_to_end(data.track)
            if len(lane.quiet_ns) > MAX_SUBJECTS:
                lane.quiet_ns.popitem(last=False)
        summary = f"{data.summary} while {rule.sensor} is {rule.condition}, for {lasted_s:.1f} s"
        details = {**data.details, "held_s": round(lasted_s, 3)}
        joined = data.model_copy(update={"sensor": rule.sensor, "summary": summary, "details": details})
        return candidate.event.model_copy(update={"data": joined})
