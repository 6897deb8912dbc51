"""Functions that read Kafka records and enter the records' facts into the ledger. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping

from ingest.contract import headers as h
from ingest.contract.codec import R, decode
from ingest.contract.identity import FrameId, is_replay
from ingest.contract.records import Batch, EpochEnd, Frame, Heartbeat, Readings, Result, Waiting, WithheldInterval
from ingest.contract.topics import BATCHES, BATCHES_LATE, DEADLETTER, FRAMES, FRAMES_LATE, READINGS, RESULTS, STATUS
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord
from ingest.ledger.states import DEAD, FrameEnd, Ledger


def enter_frame(ledger: Ledger, record: LogRecord) -> None:
    """Enter a record of ``frames`` or ``frames.late`` into the ledger."""
    found = _delivery(record)
    if found:  # else it names no frame: the prepare stage parks it, and its dead letter counts as unidentified
        frame, account = found
        ledger.add_frame(frame, h.lane_of(record.headers, record.topic), account, _captured_ns(record))


def enter_readings(ledger: Ledger, record: LogRecord) -> None:
    """Enter a record of ``readings`` into the ledger."""
    readings = _decoded(Readings, record)
    if readings and ledger.readings:
        ledger.readings.add_readings(readings.first, readings.last_seq, readings.account)


def enter_status(ledger: Ledger, record: LogRecord) -> None:
    """Enter into the ledger the facts in a heartbeat: intervals of withheld frames, ends of epochs (capture runs),
    and contents of spools."""
    beat = _decoded(Heartbeat, record)
    if beat:
        _enter_heartbeat(ledger, beat, record.offset)


def _enter_heartbeat(ledger: Ledger, beat: Heartbeat, offset: int) -> None:
    for gap in beat.expired_unread:
        ledger.expired_unread[gap.group, gap.topic, gap.partition].add(gap.first, gap.last)
    cameras = [(c.camera, c.epoch, c.captured - 1) for c in beat.cameras]
    _enter_intervals(ledger, beat, beat.accounts, beat.ended, beat.waiting)
    for name, epoch, last in cameras:
        ledger.add_progress(name, epoch, last, offset)
    if ledger.readings:
        own, sensors = beat.readings, [(s.sensor, s.epoch, s.captured - 1) for s in beat.sensors]
        _enter_intervals(ledger.readings, beat, own.accounts, own.ended, own.waiting)
        for name, epoch, last in sensors:
            ledger.readings.add_progress(name, epoch, last, offset)


def _enter_intervals(
    ledger: Ledger,
    beat: Heartbeat,
    accounts: Iterable[WithheldInterval],
    ended: Iterable[EpochEnd],
    waiting: Iterable[Waiting] | None,
) -> None:
    for account in accounts:
        ledger.add_account(account, beat.at_ns)
    for end in ended:
        ledger.add_epoch_end(end)
    if waiting is not None:
        ledger.set_spooled(beat.instance, beat.at_ns, waiting)


def enter_result(ledger: Ledger, record: LogRecord) -> None:
    """Enter into the ledger the final state of a frame in one pipeline, from a record of ``results``."""
    result = _decoded(Result, record)
    if result:
        end = FrameEnd(result.outcome, result.pipeline, result.lane, result.reason)
        ledger.add_frame_end(result.id, end, frozenset(result.pipelines))


def enter_dead_letter(ledger: Ledger, record: LogRecord) -> None:
    """Enter into the ledger the final state ``dead`` for all frames in a dead letter."""
    failure = h.read_failure(record.headers)
    if failure is None or failure.topic not in (FRAMES, FRAMES_LATE, BATCHES, BATCHES_LATE):
        return  # a result, event or reading that failed at a later stage: its frame already has its end
    frames = h.frames_of(record.headers)
    pipeline = h.pipeline_of(record.headers)
    lane = h.lane_of(record.headers, failure.topic)
    end = FrameEnd(DEAD, pipeline, lane, failure.error)
    batch = _decoded(Batch, record) if pipeline else None
    routes = {item.id: frozenset(item.pipelines) for item in batch.items} if batch else {}
    for frame in frames:
        ledger.add_frame_end(frame, end, routes.get(frame, frozenset()))
    if not frames and not is_replay(lane):
        ledger.add_unidentified((failure.topic, failure.partition, failure.offset))


ENTRY_BY_TOPIC: Mapping[str, Callable[[Ledger, LogRecord], None]] = {
    FRAMES: enter_frame,
    FRAMES_LATE: enter_frame,
    READINGS: enter_readings,
    STATUS: enter_status,
    RESULTS: enter_result,
    DEADLETTER: enter_dead_letter,
}


class RetainedReadings:
    """Enters into the ledger the readings that retention has not deleted, and the first reading of each sensor that
    the audit checks.

    ``truncated`` holds the partitions in which retention has deleted records. A sensor's readings are in order, so
    nothing is missing after the sensor's first remaining record. If retention deleted records of a partition and a
    sensor has no record left in the partition, the sensor's readings cannot be checked.
    """

    def __init__(self, ledger: Ledger, truncated: Container[int], partition_of: Callable[[str], int]) -> None:
        self._ledger, self._truncated, self._partition_of = ledger, truncated, partition_of
        self._seen: set[str] = set()

    def readings(self, record: LogRecord) -> None:
        """Enter a record of the topic ``readings`` in the ledger.

        The caller enters all records of ``readings`` before any heartbeat.
        """
        readings = _decoded(Readings, record)
        if readings is None:
            return
        if readings.sensor not in self._seen and record.partition in self._truncated:
            first = readings.account.first if readings.account else readings.seq
            self._ledger.start_at(readings.sensor, readings.epoch, first)
        self._seen.add(readings.sensor)
        self._ledger.add_readings(readings.first, readings.last_seq, readings.account)

    def leave_out_unseen(self, beat: Heartbeat) -> None:
        """Do not audit a sensor that a heartbeat names if retention has deleted all its readings."""
        own = beat.readings
        about = {a.camera for a in own.accounts} | {e.camera for e in own.ended} | {s.sensor for s in beat.sensors}
        for sensor in about:
            if sensor not in self._seen and self._partition_of(sensor) in self._truncated:
                self._ledger.leave_out(sensor)


class RetainedFrames:
    """Enters into the ledger the frames that retention has not deleted, and the first frame of each camera that the
    audit checks.

    ``truncated`` maps a partition to the Unix time in ms up to which retention has deleted frames from ``frames`` or
    ``frames.late``. The audit checks a camera from its first live frame on that was sent after the time in
    ``truncated``. Earlier live frames are not audited. All frames that the camera captured after the first audited
    frame were also sent after it, so retention has deleted none of them. If retention deleted frames of a partition
    and a camera has no later live frame in the partition, the camera's frames cannot be checked. ``partition_of``
    returns the partition of a camera that has no frame left. ``sensors`` is the RetainedReadings object for the same
    ledger.
    """

    def __init__(
        self,
        ledger: Ledger,
        truncated: Mapping[int, int],
        partition_of: Callable[[str], int],
        sensors: RetainedReadings,
    ) -> None:
        self._ledger, self._truncated, self._partition_of, self._sensors = ledger, truncated, partition_of, sensors
        self._seen: set[str] = set()

    def frame(self, record: LogRecord) -> None:
        """Enter a record of ``frames`` or ``frames.late`` into the ledger.

        The caller enters all records of ``frames`` before any record of ``frames.late``.
        """
        found, lane = _delivery(record), h.lane_of(record.headers, record.topic)
        if not found or is_replay(lane):
            return
        frame, account = found
        if record.partition in self._truncated:
            if record.topic == FRAMES_LATE and frame.camera not in self._seen:
                self._ledger.leave_out(frame.camera)
            elif record.topic == FRAMES and frame.camera not in self._ledger.starts:
                if record.timestamp_ms < self._truncated[record.partition]:
                    return
                self._ledger.start_at(frame.camera, frame.epoch, account.first if account else frame.seq)
        self._seen.add(frame.camera)
        self._ledger.add_frame(frame, lane, account, _captured_ns(record))

    def status(self, record: LogRecord) -> None:
        """Enter a heartbeat, which is a record of ``status``, into the ledger.

        Heartbeats are retained longer than frames, so a heartbeat may report cameras without any retained frame.
        """
        beat = _decoded(Heartbeat, record)
        if beat is None:
            return
        about = {a.camera for a in beat.accounts} | {e.camera for e in beat.ended} | {c.camera for c in beat.cameras}
        for camera in about:
            if camera not in self._seen and self._partition_of(camera) in self._truncated:
                self._ledger.leave_out(camera)
        self._sensors.leave_out_unseen(beat)
        _enter_heartbeat(self._ledger, beat, record.offset)


def _delivery(record: LogRecord) -> tuple[FrameId, WithheldInterval | None] | None:
    """Return the frame of a record and the interval of frames withheld before it, from the headers or else the body.

    The headers are still readable when the body is corrupt. If the header ``sightline-account`` is missing, the body
    is read, because the record's producer may not know this header.
    """
    frames = h.frames_of(record.headers)
    account = h.account_of(record.headers, frames[0]) if len(frames) == 1 else None
    if account:
        return frames[0], account
    frame = _decoded(Frame, record)
    if frame is None:
        return (frames[0], None) if len(frames) == 1 else None
    if len(frames) == 1 and frames[0] != frame.id:
        return frames[0], None  # the prepare stage parks it under the id in its header
    return frame.id, frame.account


def _captured_ns(record: LogRecord) -> int:
    """Return the approximate capture time of a delivered frame, in Unix ns.

    A live frame is written just after its capture. For a late frame, the capture time is read from the body, because
    the frame may have waited in a spool for hours.
    """
    frame = _decoded(Frame, record) if record.topic == FRAMES_LATE else None
    return frame.captured_ns if frame else record.timestamp_ms * 1_000_000


def _decoded(kind: type[R], record: LogRecord) -> R | None:
    """Return the decoded value of a record, None if the value cannot be decoded.

    If a value cannot be decoded, its frames and withheld intervals are not entered, and the audit reports their
    sequence numbers as missing.
    """
    try:
        return decode(kind, record.value)
    except CodecError:
        return None
