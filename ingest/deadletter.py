"""Dead letters: what could not be processed, parked with its original bytes, listed, and brought back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from ingest import headers as h
from ingest.codec import decode
from ingest.exceptions import CodecError
from ingest.headers import Failure, failure_headers, frames_of, read_failure
from ingest.identity import FrameId, is_replay, replay_lane
from ingest.log import Log, LogRecord, Outgoing
from ingest.records import Result
from ingest.topics import DEADLETTER, RESULTS

__all__ = ["DeadLetter", "ReplayReport", "letters", "parked", "replay"]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One parked record: its own place on ``deadletter``, why it is there, and which frames it was."""

    offset: int
    parked_ms: int
    failure: Failure
    frames: tuple[FrameId, ...]
    pipeline: str
    record: LogRecord

    @property
    def lane(self) -> str:
        """The lane that the record was on when it failed."""
        return h.lane_of(self.record.headers, self.failure.topic)


def parked(record: LogRecord, stage: str, error: Exception, pipeline: str = "") -> Outgoing:
    """Return the dead letter of a record: the original bytes, key and headers, and why and where it failed."""
    failure = Failure(
        record.topic,
        record.partition,
        record.offset,
        stage,
        getattr(error, "reason", type(error).__name__),
        str(error),
    )
    headers = {**record.headers, **failure_headers(failure)}
    if pipeline:
        headers[h.PIPELINE] = pipeline.encode()
    return Outgoing(DEADLETTER, 0, record.value, key=record.key, headers=headers)


async def letters(log: Log) -> AsyncIterator[DeadLetter]:
    """Yield every dead letter that retention has left, oldest first."""
    first, last = (await log.beginnings(DEADLETTER))[0], (await log.ends(DEADLETTER))[0]
    async for record in log.read(DEADLETTER, 0, first, last):
        failure = read_failure(record.headers)
        if failure:
            pipeline = record.headers.get(h.PIPELINE, b"").decode(errors="replace")
            yield DeadLetter(record.offset, record.timestamp_ms, failure, frames_of(record.headers), pipeline, record)


@dataclass
class ReplayReport:
    """What a replay did: frames or records sent again, and why others were not."""

    run: str
    sent: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, why: str) -> None:
        """Count one that was not sent."""
        self.skipped[why] = self.skipped.get(why, 0) + 1


async def replay(log: Log, run: str, wanted: Callable[[DeadLetter], bool] = lambda _: True) -> ReplayReport:
    """Send the wanted dead letters to the topic and partition that they came from, on a lane named by the run.

    The very bytes go back. What has been replayed to an end already, and the same frame parked twice, is skipped, so
    that a replay may be repeated. Raise ValueError if the run's name is not usable.
    """
    lane, report = replay_lane(run), ReplayReport(run)
    done = await _replayed(log)
    async for letter in letters(log):
        if not wanted(letter):
            continue
        keys: set[object] = {(frame, letter.pipeline) for frame in letter.frames} or {letter.failure}
        if keys & done:
            report.skip("replayed already")
            continue
        done |= keys
        await log.produce(_back(letter, lane))
        report.sent += 1
    return report


def _back(letter: DeadLetter, lane: str) -> Outgoing:
    errors = failure_headers(letter.failure).keys()
    headers = {k: v for k, v in letter.record.headers.items() if k not in errors}
    failure = letter.failure
    return Outgoing(
        failure.topic,
        failure.partition,
        letter.record.value,
        key=letter.record.key,
        headers={**headers, h.LANE: lane.encode()},
    )


async def _replayed(log: Log) -> set[object]:
    """Return the frames that a replay has brought to an end, for all pipelines and per pipeline."""
    done: set[object] = set()
    ends, beginnings = await log.ends(RESULTS), await log.beginnings(RESULTS)
    for partition, end in ends.items():
        async for record in log.read(RESULTS, partition, beginnings[partition], end):
            if is_replay(h.lane_of(record.headers, RESULTS)):
                done |= _ended(record)
    return done


def _ended(record: LogRecord) -> set[object]:
    try:
        result = decode(Result, record.value)
    except CodecError:
        return set()
    return {(result.id, result.pipeline), (result.id, "")}
