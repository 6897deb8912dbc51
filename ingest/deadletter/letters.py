"""Dead letters: records that could not be processed, with their original bytes.

This module makes, lists and replays dead letters.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

from ingest.contract import headers as h
from ingest.contract.codec import MAX_RECORD_BYTES, decode
from ingest.contract.headers import Failure, failure_headers, frames_of, read_failure
from ingest.contract.identity import FrameId, is_replay
from ingest.contract.records import Result
from ingest.contract.topics import DEADLETTER, RESULTS
from ingest.deadletter.plan import Candidate, ReplayPlan, ReplayReceipt, Skip
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, Outgoing, TopicPartition, Writer

WRITER = "deadletter-replay"
"""Transactional id of every replay. A new replay fences an older replay that still runs, because two replays would
send the same dead letters."""
TOO_LARGE = Skip("was too large to be parked whole")
NOWHERE = Skip("names a topic or partition that does not exist")
_RECEIPT_LANE = "sightline-replayed-lane"
_RECEIPT_TOPIC = "sightline-replayed-topic"
_RECEIPT_FRAMES = "sightline-replayed-frames"
_RECEIPT_POSITION = "sightline-replayed-place"
"""Headers of a replay receipt, which is a record of ``deadletter`` without a value. A replay receipt has no error
headers, so that no reader mistakes it for a dead letter."""
_CUT = "sightline-cut-from-bytes"
"""Header of a dead letter whose value is only the first part of the original record's value. A dead letter with a
shortened value is not replayed."""
_OURS = (h.FRAMES, h.LANE, h.PIPELINE, h.TRACEPARENT, h.ACCOUNT)
MAX_HEADER_BYTES = 40 * 1024
"""Maximum size of the original record's headers in a dead letter. The ids of 64 frames take at most 20 KiB, and the
error headers, which come in addition, take 4 KiB."""
MAX_KEY_BYTES = 1024
MAX_TEXT_CHARS = 1000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record of ``deadletter``: the original record, why it failed, and the ids of its frames."""

    offset: int
    parked_ms: int
    failure: Failure
    frames: tuple[FrameId, ...]
    pipeline: str
    record: LogRecord

    @property
    def whole(self) -> bool:
        """Whether the dead letter holds all bytes of the original record."""
        return _CUT not in self.record.headers

    @property
    def lane(self) -> str:
        """Lane of the original record (``live``, ``late`` or a replay lane)."""
        return h.lane_of(self.record.headers, self.failure.topic)

    @property
    def position(self) -> str:
        """Topic, partition and offset of the record that failed."""
        return f"{self.failure.topic}[{self.failure.partition}]@{self.failure.offset}"


def parked(record: LogRecord, stage: str, error: Exception, pipeline: str = "") -> Outgoing:
    """Return a dead letter with the bytes, key and headers of a record, and with headers that describe the failure.

    A dead letter never exceeds the size limit of its topic. If another project's producer wrote a record that exceeds
    the limit, the dead letter holds the bytes that fit, and a header with the record's size.
    """
    failure = Failure(record.topic, record.partition, record.offset, stage, _reason(error), _shortened(str(error)))
    headers = {**_bounded(record.headers), **failure_headers(failure)}
    if pipeline:
        headers[h.PIPELINE] = _shortened(pipeline).encode()
    if len(record.value) > MAX_RECORD_BYTES:
        headers[_CUT] = str(len(record.value)).encode()
    key = record.key[:MAX_KEY_BYTES] if record.key else record.key
    return Outgoing(DEADLETTER, 0, record.value[:MAX_RECORD_BYTES], key=key, headers=headers)


def _bounded(headers: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the headers that fit into ``MAX_HEADER_BYTES``, and prefer this project's headers.

    The topic accepts records with up to 64 KiB of headers.
    """
    kept: dict[str, bytes] = {}
    room = MAX_HEADER_BYTES
    for name, value in sorted(headers.items(), key=lambda pair: pair[0] not in _OURS):
        size = len(name.encode()) + len(value or b"")
        if size <= room:
            kept[name], room = value or b"", room - size
    return kept


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS] + " …"


async def letters(log: Log) -> AsyncIterator[DeadLetter]:
    """Yield all retained dead letters, oldest first. Raise LogUnavailable."""
    async for record in _records(log, (await log.ends(DEADLETTER))[0]):
        letter = _letter(record)
        if letter:
            yield letter


async def letter_at(log: Log, offset: int) -> DeadLetter | None:
    """Return the dead letter at an offset, None if there is no dead letter at this offset. Raise LogUnavailable."""
    if not (await log.beginnings(DEADLETTER))[0] <= offset < (await log.ends(DEADLETTER))[0]:
        return None
    async with aclosing(log.read(DEADLETTER, 0, offset, offset + 1)) as records:
        async for record in records:
            return _letter(record)
    return None


@dataclass
class ReplayReport:
    """Report of a replay: the number of dead letters sent, and the number of dead letters skipped, by reason."""

    run: str
    sent: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, why: str) -> None:
        """Count a dead letter that was skipped for the reason ``why``."""
        self.skipped[why] = self.skipped.get(why, 0) + 1


async def replay(log: Log, run: str, wanted: Callable[[DeadLetter], bool] = lambda _: True) -> ReplayReport:
    """Send the original records of the wanted dead letters to their topics and partitions again.

    The records are sent in lanes whose names contain ``run``, the name of the replay. Skip frames that already have a
    result, and frames that an earlier replay sent and that may still be in processing. A second run of the replay
    command therefore sends no frame again. If a replayed record fails again, the next replay sends the record again.
    A new replay fences an older replay that still runs.

    Raise ValueError for an invalid ``run``. Also raise Fenced or LogUnavailable.
    """
    end = (await log.ends(DEADLETTER))[0]
    receipts: list[ReplayReceipt] = []
    frames: set[FrameId] = set()
    async for record in _records(log, end):
        letter, receipt = _letter(record), _receipt(record)
        if receipt:
            receipts.append(receipt)
        elif letter and wanted(letter):
            frames |= set(letter.frames)
    partitions = await log.partitions()
    plan, report = ReplayPlan(run, receipts, await _ended(log, frames)), ReplayReport(run)
    writer = await log.writer(WRITER)
    try:
        async for record in _records(log, end):
            letter = _letter(record)
            if letter and wanted(letter):
                if 0 <= letter.failure.partition < partitions.get(letter.failure.topic, 0):
                    await _replay_one(letter, plan, writer, report)
                else:
                    report.skip(NOWHERE.why)
    finally:
        await writer.close()
    return report


async def erase(log: Log, wanted: Callable[[DeadLetter], bool]) -> int:
    """Erase the contents of the wanted dead letters, and return their number.

    Kafka cannot delete single records. All dead letters and receipts are written again in their order, the erased
    letters without their values. After the records are written again, the original records are deleted. An erased
    letter keeps its headers with frames and error, so that the ledger balances; it cannot be replayed. Because the
    remaining letters are written again, Kafka's retention time for them begins anew.

    If the process ends before the deletion, letters are in the topic twice; run the erasure again. A replay of dead
    letters that runs at the same time is fenced by the erasure's writer. Raise Fenced or LogUnavailable.
    """
    end = (await log.ends(DEADLETTER))[0]
    erased = 0
    async for record in _records(log, end):
        letter = _letter(record)
        erased += letter is not None and bool(record.value) and wanted(letter)
    if not erased:
        return 0
    writer = await log.writer(WRITER)
    try:
        async for record in _records(log, end):
            letter = _letter(record)
            keep = letter is None or not wanted(letter)
            headers = record.headers if keep else {**record.headers, _CUT: str(len(record.value)).encode()}
            value = record.value if keep else b""
            await writer.write([Outgoing(DEADLETTER, 0, value, key=record.key, headers=headers)], "", {})
    finally:
        await writer.close()
    await log.delete_before(TopicPartition(DEADLETTER, 0), end)
    return erased


async def _replay_one(letter: DeadLetter, plan: ReplayPlan, writer: Writer, report: ReplayReport) -> None:
    candidate = Candidate(letter.offset, letter.failure.topic, letter.pipeline, letter.frames, letter.position)
    decision = plan.decide(candidate) if letter.whole else TOO_LARGE
    if isinstance(decision, Skip):
        report.skip(decision.why)
        return
    # One transaction: a letter sent without its receipt would be sent again by the next run.
    await writer.write([_resent(letter, decision.lane), _receipt_for(letter, decision.lane)], "", {})
    report.sent += 1


async def _records(log: Log, end: int) -> AsyncIterator[LogRecord]:
    first = (await log.beginnings(DEADLETTER))[0]
    async with aclosing(log.read(DEADLETTER, 0, first, end)) as records:
        async for record in records:
            yield record


def _letter(record: LogRecord) -> DeadLetter | None:
    failure = read_failure(record.headers)
    if failure is None:
        return None
    pipeline = h.pipeline_of(record.headers)
    return DeadLetter(record.offset, record.timestamp_ms, failure, frames_of(record.headers), pipeline, record)


def _resent(letter: DeadLetter, lane: str) -> Outgoing:
    failure = letter.failure
    errors = failure_headers(failure).keys()
    headers = {name: value for name, value in letter.record.headers.items() if name not in errors}
    return Outgoing(
        failure.topic,
        failure.partition,
        letter.record.value,
        key=letter.record.key,
        headers={**headers, h.LANE: lane.encode()},
    )


def _receipt_for(letter: DeadLetter, lane: str) -> Outgoing:
    headers = {
        _RECEIPT_LANE: lane.encode(),
        _RECEIPT_TOPIC: letter.failure.topic.encode(),
        _RECEIPT_FRAMES: "\n".join(map(str, letter.frames)).encode(),
        _RECEIPT_POSITION: letter.position.encode(),
        h.PIPELINE: letter.pipeline.encode(),
    }
    return Outgoing(DEADLETTER, 0, b"", key=letter.record.key, headers=headers)


def _receipt(record: LogRecord) -> ReplayReceipt | None:
    text = {name: value.decode(errors="replace") for name, value in record.headers.items()}
    if _RECEIPT_LANE not in text:
        return None
    frames = frames_of({h.FRAMES: record.headers.get(_RECEIPT_FRAMES, b"")})
    position, topic = text.get(_RECEIPT_POSITION, ""), text.get(_RECEIPT_TOPIC, "")
    sent = Candidate(record.offset, topic, text.get(h.PIPELINE, ""), frames, position)
    return ReplayReceipt(record.offset, text[_RECEIPT_LANE], sent)


async def _ended(log: Log, frames: set[FrameId]) -> Mapping[object, bool]:
    """Return a map from each frame that has a result to True if a replay wrote the result, else False.

    Each result has two keys: (frame id, pipeline), and (frame id, ``""``), which stands for any pipeline.
    """
    ended: dict[object, bool] = {}
    ends, beginnings = await log.ends(RESULTS), await log.beginnings(RESULTS)
    for partition, end in ends.items() if frames else ():
        async with aclosing(log.read(RESULTS, partition, beginnings[partition], end)) as records:
            async for record in records:
                with suppress(CodecError):
                    result = decode(Result, record.value)
                    if result.id in frames:
                        ended[result.id, result.pipeline] = ended[result.id, ""] = is_replay(result.lane)
    return ended


def _reason(error: Exception) -> str:
    """Return the name of an error for dead letters: ``reason`` of this project's errors, else the class name."""
    reason = None if isinstance(error, (UnicodeError, OSError)) else getattr(error, "reason", None)
    return reason if isinstance(reason, str) else type(error).__name__
