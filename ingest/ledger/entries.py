"""From records to entries in the ledger. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.identity import FrameId, is_replay
from ingest.contract.records import Account, Batch, EpochEnd, Frame, Heartbeat, Result, Waiting
from ingest.contract.topics import BATCHES, BATCHES_LATE, DEADLETTER, FRAMES, FRAMES_LATE, READINGS, RESULTS, STATUS
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from ingest.ledger.readings import RetainedReadings, enter_readings
from ingest.ledger.states import DEAD, FrameEnd, Ledger


def enter_frame(ledger: Ledger, record: LogRecord) -> None:
    """Enter a record of ``frames`` or ``frames.late``."""
    found = _delivery(record)
    if found:  # else it says nothing of itself: prepare parks it, and it is counted there as unidentified
        frame, account = found
        ledger.delivered(frame, h.lane_of(record.headers, record.topic), account)


def enter_status(ledger: Ledger, record: LogRecord) -> None:
    """Enter what an agent accounts for and which epochs it has ended."""
    try:
        beat = decode(Heartbeat, record.value)
    except CodecError:
        return  # what it accounted for, if anything, shows up as missing
    _enter_beat(ledger, beat)


def _enter_beat(ledger: Ledger, beat: Heartbeat) -> None:
    cameras = [(c.camera, c.epoch, c.captured - 1) for c in beat.cameras]
    _enter_word(ledger, beat, beat.accounts, beat.ended, cameras, beat.waiting)
    if ledger.readings:
        sensors, said = [(s.sensor, s.epoch, s.captured - 1) for s in beat.sensors], beat.readings
        _enter_word(ledger.readings, beat, said.accounts, said.ended, sensors, said.waiting)


def _enter_word(
    ledger: Ledger,
    beat: Heartbeat,
    accounts: Iterable[Account],
    ended: Iterable[EpochEnd],
    told: Iterable[tuple[str, int, int]],
    waiting: Iterable[Waiting] | None,
) -> None:
    for account in accounts:
        ledger.account(account)
    for end in ended:
        ledger.ended(end)
    for name, epoch, last in told:
        ledger.told(name, epoch, last)
    if waiting is not None:
        ledger.waits(beat.instance, beat.at_ns, waiting)


def enter_result(ledger: Ledger, record: LogRecord) -> None:
    """Enter the end of a frame in one pipeline."""
    try:
        result = decode(Result, record.value)
    except CodecError:
        return  # a result that nobody can read is no end: its frame shows up as unaccounted
    end = FrameEnd(result.outcome, result.pipeline, result.lane, result.reason)
    ledger.finished(result.id, end, frozenset(result.pipelines))


def enter_dead_letter(ledger: Ledger, record: LogRecord) -> None:
    """Enter the end of the frames that a record held which could not be processed."""
    failure = h.read_failure(record.headers)
    if failure is None or failure.topic not in (FRAMES, FRAMES_LATE, BATCHES, BATCHES_LATE):
        return  # a result, event or reading that failed later on: its frame has its end already
    frames = h.frames_of(record.headers)
    pipeline = record.headers.get(h.PIPELINE, b"").decode(errors="replace")
    lane = h.lane_of(record.headers, failure.topic)
    end, routes = FrameEnd(DEAD, pipeline, lane, failure.error), _routes(record) if pipeline else {}
    for frame in frames:
        ledger.finished(frame, end, routes.get(frame, frozenset()))
    if not frames and not is_replay(lane):
        ledger.unnamed((failure.topic, failure.partition, failure.offset))


ENTER: Mapping[str, Callable[[Ledger, LogRecord], None]] = {
    FRAMES: enter_frame,
    FRAMES_LATE: enter_frame,
    READINGS: enter_readings,
    STATUS: enter_status,
    RESULTS: enter_result,
    DEADLETTER: enter_dead_letter,
}


class RetainedFrames:
    """Enters what retention has left, and finds for each camera the frame from which on nothing is missing.

    ``taken`` gives, by partition, the Unix time in ms up to which retention has taken frames, on either lane. A
    camera's first live frame that was sent after that is its beginning: live frames before it are gone or left out,
    and whatever was captured after it, also what came late, was sent later still. A camera of such a partition
    without such a frame cannot be balanced. ``partition_of`` says which is a camera's, where no frame of it is left.
    ``sensors`` does the same for readings.
    """

    def __init__(
        self,
        ledger: Ledger,
        taken: Mapping[int, int],
        partition_of: Callable[[str], int],
        sensors: RetainedReadings | None = None,
    ) -> None:
        self._books = ledger
        self._taken = taken
        self._partition_of = partition_of
        self._sensors = sensors
        self._seen: set[str] = set()

    def live_frame(self, record: LogRecord) -> None:
        """Enter a record of ``frames``. All of these come first."""
        found, lane = _delivery(record), h.lane_of(record.headers, record.topic)
        if not found or is_replay(lane):
            return
        frame, account = found
        if record.partition in self._taken and frame.camera not in self._books.beginnings:
            if record.timestamp_ms < self._taken[record.partition]:
                return
            self._books.begin(frame.camera, frame.epoch, account.first if account else frame.seq)
        self._seen.add(frame.camera)
        self._books.delivered(frame, lane, account)

    def late_frame(self, record: LogRecord) -> None:
        """Enter a record of ``frames.late``. All of these come second."""
        found, lane = _delivery(record), h.lane_of(record.headers, record.topic)
        if not found or is_replay(lane):
            return
        frame, account = found
        if frame.camera not in self._seen and record.partition in self._taken:
            self._books.leave_out(frame.camera)
        self._seen.add(frame.camera)
        self._books.delivered(frame, lane, account)

    def status(self, record: LogRecord) -> None:
        """Enter a record of ``status``, which outlives the frames that it is about."""
        try:
            beat = decode(Heartbeat, record.value)
        except CodecError:
            return
        about = {a.camera for a in beat.accounts} | {e.camera for e in beat.ended} | {c.camera for c in beat.cameras}
        for camera in about:
            if camera not in self._seen and self._partition_of(camera) in self._taken:
                self._books.leave_out(camera)
        if self._sensors:
            self._sensors.leave_out_unseen(beat)
        _enter_beat(self._books, beat)


def _delivery(record: LogRecord) -> tuple[FrameId, Account | None] | None:
    """Return the frame that a record delivers and the account it carries: by its headers, else by its body.

    Headers are what a ruined body leaves of a frame. A frame without the account header may be of a writer that does
    not know it, and is asked itself.
    """
    frames = h.frames_of(record.headers)
    account = h.account_of(record.headers, frames[0]) if len(frames) == 1 else None
    if account:
        return frames[0], account
    try:
        frame = decode(Frame, record.value)
    except CodecError:
        return (frames[0], None) if len(frames) == 1 else None
    if len(frames) == 1 and frames[0] != frame.id:
        return frames[0], None  # prepare parks it under the name that its header gives
    return frame.id, frame.account


def _routes(record: LogRecord) -> dict[FrameId, frozenset[str]]:
    """Return the pipelines that the frames of a parked batch were routed to, where it can still be read."""
    try:
        batch = decode(Batch, record.value)
    except CodecError:
        return {}
    return {item.id: frozenset(item.pipelines) for item in batch.items}
