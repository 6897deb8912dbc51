"""Keep or withhold: hours, rate, motion, sample. Pure but for the detector's state; time comes with the frame.

A closed gate holds the last frames back. Those that are in line when something begins to move are sent too, and those
that leave the line before that are withheld, but for a picture now and then and for the random sample. So fates come
some frames late, and always in the order of the frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edge_agent.gate.line import Line, Waiting
from edge_agent.gate.motion import MotionDetector, Seen
from edge_agent.gate.progress import Progress
from edge_agent.gate.rate import Rate
from edge_agent.gate.sample import sampled
from edge_agent.gate.schedule import Schedule
from edge_agent.gate.shot import Fate, Shot
from ingest.contract.records import Box
from ingest.site import GateConfig

STILL, MASKED, RATE, SCHEDULE = "still", "masked", "rate", "schedule"

ROLL_CALL_NS = 10_000_000_000
"""So often a frame that is sent tells what rests in the picture, be it that something else moves: whoever counts how
long it stands has lost sight of it meanwhile. So does the next one that is sent, since a tracker begins with nothing
less than two frames in a row. Each costs a region to look at for each thing that rests."""
_SETTLE_NS = 1_000_000_000
"""When motion ends, what rests is named without waiting for that; but what trembles ends several times a second."""


class Gate:
    """Decides on the frames of one epoch of one camera, each of which is given once, in order.

    The first frame that is looked at, also after hours in which the camera was not armed, is always kept.
    """

    def __init__(self, config: GateConfig, camera: str, epoch: int) -> None:
        self._config, self._camera, self._epoch = config, camera, epoch
        self._schedule = Schedule(config.armed, config.time_zone or "UTC")
        self._looks, self._sends = Rate(config.max_fps), Rate(config.open_fps)
        self._detector = MotionDetector(config.min_area, config.masks) if config.motion else None
        self._line = Line(config.pre_roll_s)
        self._progress = Progress(config.min_change, config.min_area)
        self._fresh = True
        self._is_open = False
        self._kept_ns = 0
        self._moved_ns: int | None = None
        self._called_ns: int | None = None
        self._twice_ns: int | None = None
        self._calls_again = False

    def glance(self, captured_ns: int) -> str:
        """Return why a frame is withheld whatever it shows, empty if it has to be looked at."""
        if not self._schedule.armed(captured_ns):
            self._fresh, self._is_open = True, False
            return SCHEDULE
        return "" if self._looks.due(captured_ns) else RATE

    def look(self, shot: Shot) -> list[Fate]:
        """Look at a frame that has an image, and return the fates that are now settled."""
        assert shot.image is not None  # noqa: S101  (narrowing: what glance lets through is given its pixels)
        seen = self._detector.see(shot.image, shot.captured_ns) if self._detector else None
        now_ns = shot.captured_ns
        self._looks.take(now_ns)
        if seen and seen.boxes:
            self._moved_ns = now_ns
        fates = list(self._settled(now_ns))
        was_open, self._is_open = self._is_open, self._detector is None or self._fresh or self._in_hold(now_ns)
        if not self._is_open:
            return fates + self._held(shot, seen)
        if not was_open:
            fates += [self._fate(waiting, send=True) for waiting in self._line.all()]
        return [*fates, self._sent(shot, seen, at_once=not was_open or self._fresh or self._detector is None)]

    def pass_by(self, shot: Shot, reason: str) -> list[Fate]:
        """Withhold a frame for a reason that was found elsewhere, and return the fates that are now settled."""
        self._line.add(Waiting(replace(shot, image=None), reason))
        return list(self._settled(shot.captured_ns))

    def close(self) -> list[Fate]:
        """Return the fates of what is still in line: nothing more will move."""
        return [self._left(waiting) for waiting in self._line.all()]

    def _settled(self, now_ns: int) -> Iterator[Fate]:
        return (self._left(waiting) for waiting in self._line.leaving(now_ns))

    def _in_hold(self, now_ns: int) -> bool:
        return self._moved_ns is not None and 0 <= now_ns - self._moved_ns <= self._config.hold_s * 1e9

    def _sent(self, shot: Shot, seen: Seen | None, *, at_once: bool) -> Fate:
        parts = seen.parts if seen else None
        if not (at_once or self._sends.due(shot.captured_ns) or self._progress.is_news(parts)):
            return Fate(replace(shot, image=None), RATE)
        self._fresh = False
        self._sends.take(shot.captured_ns)
        self._progress.sent(parts)
        self._kept_ns = shot.captured_ns
        resting = self._roll_call(shot, self._resting()) if self._tells(shot.captured_ns, seen) else None
        return Fate(shot, motion=seen.boxes if seen else None, resting=resting)

    def _tells(self, at_ns: int, seen: Seen | None) -> bool:
        """Tell whether it is time to name what rests: also when nothing moves any more, and may rest or be gone."""
        if seen is None or self._calls_again or self._called_ns is None:
            return True
        ended = not seen.boxes and (self._moved_ns or 0) > self._called_ns
        return not _within(self._called_ns, at_ns, _SETTLE_NS if ended else ROLL_CALL_NS)

    def _roll_call(self, shot: Shot, resting: tuple[Box, ...] | None) -> tuple[Box, ...] | None:
        """Take note that a frame that is sent tells what rests in it."""
        at_ns = self._called_ns = shot.captured_ns
        self._calls_again = bool(resting) and not _within(self._twice_ns, at_ns, ROLL_CALL_NS)
        self._twice_ns = at_ns if self._calls_again else self._twice_ns
        return resting

    def _resting(self) -> tuple[Box, ...] | None:
        return self._detector.resting() if self._detector else None

    def _held(self, shot: Shot, seen: Seen | None) -> list[Fate]:
        chosen = sampled(self._camera, self._epoch, shot.seq, self._config.sample)
        masked = bool(seen and seen.masked)
        motion = seen.boxes if seen else None
        resting = self._resting() if self._is_overdue(shot) else None  # while it waits it gets no more overdue
        self._line.add(Waiting(shot, MASKED if masked else STILL, motion, resting, chosen))
        return list(self._settled(shot.captured_ns))

    def _left(self, waiting: Waiting) -> Fate:
        """Return the fate of a frame after which nothing has moved."""
        overdue = self._is_overdue(waiting.shot)
        if waiting.sampled and not overdue:
            # it changes nothing for the frames after it, or it would be the sample of another gate
            return Fate(waiting.shot, motion=waiting.motion, sampled=True)
        return self._fate(waiting, send=overdue, tells=overdue)

    def _is_overdue(self, shot: Shot) -> bool:
        every_ns = self._config.keep_alive_s * 1e9
        return bool(every_ns) and not 0 <= shot.captured_ns - self._kept_ns < every_ns

    def _fate(self, waiting: Waiting, *, send: bool, tells: bool = False) -> Fate:
        if not send or waiting.shot.image is None:
            return Fate(replace(waiting.shot, image=None), waiting.reason)
        self._kept_ns = waiting.shot.captured_ns
        resting = self._roll_call(waiting.shot, waiting.resting) if tells else None
        return Fate(waiting.shot, motion=waiting.motion, resting=resting)


def _within(then_ns: int | None, now_ns: int, span_ns: int) -> bool:
    return then_ns is not None and 0 <= now_ns - then_ns < span_ns
