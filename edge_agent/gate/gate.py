"""Gate of one camera: selects the frames to send by armed hours, frame rate, motion and a random sample.

The gate reads no clock, and uses the capture times of the frames instead.

While nothing moves, the gate is closed, and frames wait in the pre-roll buffer. When motion begins, the gate opens,
and the buffered frames are sent first. A frame that leaves the buffer without motion is withheld, unless it is due as
a keep-alive frame or belongs to the random sample. The decision on a frame may come some frames later, because the
frame waits in the pre-roll buffer. The gate returns decisions in the order of the frames.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from hashlib import blake2b

from edge_agent.gate.decision import GateDecision, NumberedFrame, withheld
from edge_agent.gate.motion import Motion, MotionDetector
from edge_agent.gate.parts import NewMotion
from ingest.contract.records import Box
from ingest.site import GateConfig
from ingest.site.hours import Schedule

STILL, MASKED, RATE, SCHEDULE = "still", "masked", "rate", "schedule"

REPORT_STATIONARY_NS = 10_000_000_000
"""Interval between two reports of stationary objects while other objects move, in ns. Without regular reports, the
stream processors would lose the stationary objects and end their dwell timers. The next sent frame after a report
repeats the report, because a tracker needs an object in two consecutive frames to begin a track. Each report makes
the inference engine examine one region for each stationary object."""
_SETTLE_NS = 1_000_000_000
"""Minimum time between two reports of stationary objects that are sent because motion has ended, in ns. A report at
the end of motion does not wait for ``REPORT_STATIONARY_NS``. Without a minimum time, the motion of a trembling
object, which ends several times a second, would cause several reports a second."""
_EARLY_SHARE = 0.15
"""Share of the frame interval by which a frame may come too early and still pass the rate limit. A frame that follows
a delayed frame seems to come too early. A camera whose frame rate is below the rate limit must not lose frames
because of network delays."""
_SAMPLE_BYTES = 8
MAX_PICTURES = 12
"""Maximum number of pictures in the pre-roll buffer. When motion begins, all buffered pictures are sent at once, and
the queue to the agent has room for only 16 messages."""
MAX_BYTES = 32 * 1024 * 1024
"""Maximum size of the pictures in the pre-roll buffer, in bytes: 5 pictures of 1920×1080, or 46 of 640×360. The
pictures in the buffer are not compressed, because compressing every withheld frame would cost more than motion
detection."""
_MAX_FRAMES = 1000
"""Maximum number of frames in the pre-roll buffer, with or without a picture. This limit bounds the buffer even if
the capture times of the frames do not advance, so that no frame expires."""


class Rate:
    """Limit of the average number of frames per second; 0 means no limit.

    Pure: the current time is the capture time of the frame.
    """

    def __init__(self, fps: float) -> None:
        self._interval_ns = 1e9 / fps if fps else 0.0
        self._early_ns = _EARLY_SHARE * self._interval_ns
        self._taken_ns: int | None = None
        self._next_ns = 0.0

    def due(self, now_ns: int) -> bool:
        """Return whether a frame captured at ``now_ns`` may pass the rate limit.

        If the clock has been set back, the frame may pass and the rate limit starts anew.
        """
        return self._taken_ns is None or now_ns >= self._next_ns - self._early_ns or now_ns < self._taken_ns

    def take(self, now_ns: int) -> None:
        """Record that a frame captured at ``now_ns`` has passed the rate limit.

        The next frame is due one interval after this frame was due, so that the average rate stays at the limit.
        After a pause of the camera, the rate limit starts anew: no extra frames may pass to make up for the pause.
        """
        first = self._taken_ns is None or now_ns < self._taken_ns
        behind = first or not -self._early_ns <= now_ns - self._next_ns < self._interval_ns
        self._next_ns = (now_ns if behind else self._next_ns) + self._interval_ns
        self._taken_ns = now_ns


def sampled(camera: str, epoch: int, seq: int, share: float) -> bool:
    """Return whether a frame belongs to a random sample; ``share`` is the sample's share of all frames, in 0..1.

    The choice depends only on a hash of camera, epoch and sequence number, so a second pass over the same frames
    selects the same sample.
    """
    digest = blake2b(f"{camera}/{epoch}/{seq}".encode(), digest_size=_SAMPLE_BYTES).digest()
    return int.from_bytes(digest, "big") < share * (1 << (8 * _SAMPLE_BYTES))


class PreRollBuffer:
    """Pre-roll buffer: a queue of preliminary decisions, in the order of their frames.

    A decision stays in the buffer for at most ``wait_s``.
    """

    def __init__(self, wait_s: float) -> None:
        self._wait_ns = round(wait_s * 1e9)
        self._decisions: deque[GateDecision] = deque()
        self._bytes = self._pictures = 0

    def add(self, decision: GateDecision) -> None:
        """Append a decision."""
        self._decisions.append(decision)
        self._count(decision, 1)

    def expired(self, now_ns: int) -> Iterator[GateDecision]:
        """Remove and yield the decisions that have waited for ``wait_s`` or exceed a limit of the buffer, oldest
        first."""
        while self._decisions:
            first = self._decisions[0].frame
            is_full = self._pictures > MAX_PICTURES or self._bytes > MAX_BYTES or len(self._decisions) > _MAX_FRAMES
            if not is_full and first.image is not None and 0 <= now_ns - first.captured_ns < self._wait_ns:
                return
            yield self._pop()

    def drain(self) -> Iterator[GateDecision]:
        """Remove and yield all decisions in the buffer, oldest first."""
        while self._decisions:
            yield self._pop()

    def _pop(self) -> GateDecision:
        decision = self._decisions.popleft()
        self._count(decision, -1)
        return decision

    def _count(self, decision: GateDecision, sign: int) -> None:
        if decision.frame.image is not None:
            self._bytes += sign * decision.frame.image.nbytes
            self._pictures += sign


class Gate:
    """Gate for the frames of one camera during one epoch, which is one run of the capture process.

    The caller passes each frame once, in the order of capture. The gate always sends the first frame that it
    examines, the first frame after hours in which the camera was not armed, and the first frame after each change of
    the camera's view.
    """

    def __init__(self, config: GateConfig, camera: str, epoch: int) -> None:
        self._config, self._camera, self._epoch = config, camera, epoch
        self._schedule = Schedule(config.armed, config.time_zone or "UTC")
        self._looks, self._sends = Rate(config.max_fps), Rate(config.open_fps)
        self._detector = MotionDetector(config.min_area, config.masks) if config.motion else None
        self._buffer = PreRollBuffer(config.pre_roll_s)
        self._new_motion = NewMotion(config.min_change, config.min_area)
        self._is_first = True
        self._is_open = False
        self._view = ""
        self._sent_ns = 0
        self._moved_ns: int | None = None
        self._reported_ns: int | None = None
        self._repeated_ns: int | None = None
        self._repeats_report = False

    def precheck(self, captured_ns: int) -> str:
        """Return the reason to withhold a frame before decoding; an empty string if the frame must be decoded and
        examined."""
        if not self._schedule.contains(captured_ns):
            self._is_first, self._is_open = True, False
            return SCHEDULE
        return "" if self._looks.due(captured_ns) else RATE

    def decide(self, frame: NumberedFrame) -> list[GateDecision]:
        """Examine a decoded frame for motion. Return all decisions that become final with this frame.

        A returned decision may concern the current frame or earlier frames from the pre-roll buffer.
        """
        assert frame.image is not None  # noqa: S101  (narrowing: a frame that passes the precheck has its image)
        motion = self._detector.detect(frame.image, frame.captured_ns) if self._detector else None
        now_ns = frame.captured_ns
        self._looks.take(now_ns)
        if motion and motion.boxes:
            self._moved_ns = now_ns
        decisions = self._expired(now_ns)
        in_hold = self._moved_ns is not None and 0 <= now_ns - self._moved_ns <= self._config.hold_s * 1e9
        changed = frame.view != self._view
        was_open, self._is_open = self._is_open, self._detector is None or self._is_first or in_hold or changed
        if not self._is_open:
            self._buffer.add(self._preliminary(frame, motion))
            return decisions + self._expired(now_ns)
        if not was_open:
            decisions += [self._send_buffered(each) for each in self._buffer.drain()]
        at_once = not was_open or self._is_first or self._detector is None or changed
        return [*decisions, self._while_open(frame, motion, at_once=at_once)]

    def withhold(self, frame: NumberedFrame, reason: str) -> list[GateDecision]:
        """Withhold a frame for the given reason, without examining its picture.

        Return all decisions that become final with this frame.
        """
        self._buffer.add(withheld(frame, reason))
        return self._expired(frame.captured_ns)

    def close(self) -> list[GateDecision]:
        """Return the final decisions on all frames in the pre-roll buffer, at the end of the capture."""
        return [self._final(each) for each in self._buffer.drain()]

    def _expired(self, now_ns: int) -> list[GateDecision]:
        return [self._final(each) for each in self._buffer.expired(now_ns)]

    def _while_open(self, frame: NumberedFrame, motion: Motion | None, *, at_once: bool) -> GateDecision:
        """Return the decision on a frame that arrives while the gate is open."""
        parts = motion.parts if motion else None
        if not (at_once or self._sends.due(frame.captured_ns) or self._new_motion.is_new(parts)):
            return withheld(frame, RATE)
        self._is_first, self._view = False, frame.view
        self._sends.take(frame.captured_ns)
        self._new_motion.sent(parts)
        self._sent_ns = frame.captured_ns
        resting = None
        if self._is_report_due(frame.captured_ns, motion):
            resting = self._report(frame, self._stationary())
        return GateDecision(frame, motion=motion.boxes if motion else None, resting=resting)

    def _is_report_due(self, at_ns: int, motion: Motion | None) -> bool:
        """Return whether a sent frame must report stationary objects.

        A report is due when ``REPORT_STATIONARY_NS`` has passed since the last report, or when motion has just ended.
        """
        if motion is None or self._repeats_report or self._reported_ns is None:
            return True
        ended = not motion.boxes and (self._moved_ns or 0) > self._reported_ns
        return not _within(self._reported_ns, at_ns, _SETTLE_NS if ended else REPORT_STATIONARY_NS)

    def _report(self, frame: NumberedFrame, resting: tuple[Box, ...] | None) -> tuple[Box, ...] | None:
        """Record that a sent frame reports the stationary objects ``resting``.

        Return ``resting`` unchanged.
        """
        at_ns = self._reported_ns = frame.captured_ns
        self._repeats_report = bool(resting) and not _within(self._repeated_ns, at_ns, REPORT_STATIONARY_NS)
        self._repeated_ns = at_ns if self._repeats_report else self._repeated_ns
        return resting

    def _stationary(self) -> tuple[Box, ...] | None:
        return self._detector.stationary_boxes() if self._detector else None

    def _preliminary(self, frame: NumberedFrame, motion: Motion | None) -> GateDecision:
        """Return the preliminary decision on a frame that arrives while the gate is closed.

        The decision is preliminary, because motion that begins soon afterwards can reverse the decision.
        """
        chosen = sampled(self._camera, self._epoch, frame.seq, self._config.sample)
        reason = MASKED if motion and motion.masked else STILL
        # a frame that is not overdue at its capture does not become overdue in the buffer
        resting = self._stationary() if self._is_overdue(frame) else None
        return GateDecision(frame, reason, motion.boxes if motion else None, resting, chosen)

    def _final(self, buffered: GateDecision) -> GateDecision:
        """Return the final decision on a frame that leaves the pre-roll buffer for another reason than new motion."""
        if buffered.frame.image is not None and self._is_overdue(buffered.frame):
            return self._send_buffered(buffered, self._report(buffered.frame, buffered.resting))
        if buffered.sampled:
            # a sampled frame must not change the gate's state: the sample checks the other decisions
            return GateDecision(buffered.frame, motion=buffered.motion, sampled=True)
        return withheld(buffered.frame, buffered.reason)

    def _is_overdue(self, frame: NumberedFrame) -> bool:
        every_ns = self._config.keep_alive_s * 1e9
        return bool(every_ns) and not 0 <= frame.captured_ns - self._sent_ns < every_ns

    def _send_buffered(self, buffered: GateDecision, resting: tuple[Box, ...] | None = None) -> GateDecision:
        """Return the decision to send a buffered frame; if the frame has no image, return the decision to withhold
        it."""
        if buffered.frame.image is None:
            return buffered
        self._sent_ns = buffered.frame.captured_ns
        return GateDecision(buffered.frame, motion=buffered.motion, resting=resting)


def _within(then_ns: int | None, now_ns: int, span_ns: int) -> bool:
    return then_ns is not None and 0 <= now_ns - then_ns < span_ns
