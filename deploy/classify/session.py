"""One run of `sightline classify`: send pictures as frames, wait for the outcome of each frame, and check that the
ledger accounts for every frame.

All frames of a run belong to one stream with a generated name, and thus to one partition. The site file needs no
entry for the stream of pictures. A header of each frame names the pipeline; without this header, every pipeline for
all cameras would classify the frame.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from deploy.classify.pictures import PictureCapture
from edge_agent.camera.messages import KeptFrame
from edge_agent.exceptions import FrameUnusable
from edge_agent.send.link import outbound_record
from edge_agent.spool.schema import Row
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.identity import LIVE, FrameId, next_epoch
from ingest.contract.records import CameraStatus, EpochEnd, Heartbeat, Result
from ingest.contract.topics import DEADLETTER, FRAMES, RESULTS, STATUS, partition_for
from ingest.exceptions import CodecError, ConfigError
from ingest.kafka.follow import POLL_S, Follower
from ingest.kafka.log import Log, LogRecord, Outgoing
from ingest.ledger.balance import Balance, compute_balance
from ingest.ledger.entries import ENTRY_BY_TOPIC
from ingest.ledger.states import Ledger
from ingest.runtime.clock import Clock, Deadline, SystemClock
from ingest.runtime.heartbeat import instance_name
from ingest.site import PipelineConfig
from ingest.site.topic import store as configstore

SERVICE = "classify"
IN_FLIGHT = 32
"""Maximum number of sent pictures without a result: four full batches, which keep a node busy and delay live cameras
little."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of one picture.

    ``outcome`` is ``classified``, ``empty``, ``shed`` or ``dead`` as in the ledger, or ``unreadable`` if the picture
    could not be sent. If no result or dead letter arrives in time, ``outcome`` is ``unanswered``. If the run stops
    before the picture is sent, because earlier pictures are unanswered, ``outcome`` is ``unsent``.
    """

    picture: Path
    outcome: str
    reason: str = ""
    frame: FrameId | None = None
    result: Result | None = None


@dataclass(frozen=True, slots=True)
class ClassifyOutcome:
    """Outcome of a run: the stream's name, the ledger's counts of frames by outcome, and whether every picture was
    classified."""

    stream: str
    balance: Balance
    complete: bool


async def classify(
    log: Log,
    pictures: Sequence[Path],
    pipeline: str,
    *,
    timeout_s: float,
    on_answer: Callable[[Answer], None] = lambda _: None,
    clock: Clock | None = None,
) -> ClassifyOutcome:
    """Send pictures to a pipeline, report each outcome as it arrives, and return the ledger's counts of frames by
    outcome.

    Stop if pictures are waiting and no outcome has arrived for ``timeout_s``. Raise ConfigError if the pipeline is
    unknown, and LogUnavailable if Kafka does not answer.
    """
    clock = clock or SystemClock()
    config = await configstore.read(log)
    require_pipeline(pipeline, [one.name for one in config.of(PipelineConfig) if one.has_model])
    stream = f"{SERVICE}-{clock.now_ns() // 10**9}-{secrets.token_hex(2)}"
    partition = partition_for(stream, len(await log.ends(FRAMES)), config.pins)
    run = _Run(log, stream, partition, pipeline, on_answer, clock)
    await run.begin()
    await run.send_all(deque(pictures), timeout_s)
    return ClassifyOutcome(stream, compute_balance(run.ledger), run.complete)


def require_pipeline(name: str, known: Sequence[str]) -> None:
    """Raise ConfigError unless the site has this pipeline."""
    if name not in known:
        expected = (
            f"one of {', '.join(known)}" if known else "a pipeline. Apply a site: `sightline config apply FILE`"
        )
        raise ConfigError("classify", "--pipeline", name, expected)


class _Run:
    """State of one run: the pictures that wait for an outcome, and the ledger of the stream."""

    def __init__(
        self,
        log: Log,
        stream: str,
        partition: int,
        pipeline: str,
        on_answer: Callable[[Answer], None],
        clock: Clock,
    ) -> None:
        self.ledger, self.complete = Ledger(), True
        self._log, self._stream, self._partition, self._pipeline = log, stream, partition, pipeline
        self._on_answer, self._clock = on_answer, clock
        self._epoch = next_epoch(None, clock.now_ns() // 10**9)
        self._capture = PictureCapture(stream, self._epoch)
        self._waiting: dict[int, Path] = {}
        self._kept = 0
        self._followers = (Follower(log, RESULTS, partition=partition), Follower(log, DEADLETTER))

    async def begin(self) -> None:
        """Start to read new results and dead letters, before the first picture is sent."""
        for follower in self._followers:
            await follower.begin()

    async def send_all(self, queue: deque[Path], timeout_s: float) -> None:
        """Send the pictures, at most ``IN_FLIGHT`` at a time, and collect their outcomes."""
        deadline = Deadline.after(timeout_s, self._clock)
        ended = False
        while (queue or self._waiting) and not (self._waiting and deadline.passed):
            next_look = Deadline.after(POLL_S, self._clock)
            while queue and len(self._waiting) < IN_FLIGHT and not next_look.passed:
                idle = not self._waiting
                await self._send(queue.popleft())
                deadline = Deadline.after(timeout_s, self._clock) if idle else deadline
            if not queue and not ended:
                await self._end()
                ended = True
            if await self._collect():
                deadline = Deadline.after(timeout_s, self._clock)
            elif self._waiting:
                await asyncio.sleep(next_look.left)
        if not ended:
            await self._end()
        for seq, picture in self._waiting.items():
            self._answer(Answer(picture, "unanswered", f"no answer within {timeout_s:g} s", self._id(seq)))
        for picture in queue:
            self._answer(Answer(picture, "unsent", "pictures before it have no answer"))

    async def _send(self, picture: Path) -> None:
        captured_ns = self._clock.now_ns()
        try:
            kept = await asyncio.to_thread(self._capture.take, picture, captured_ns)
        except FrameUnusable as error:
            self._answer(Answer(picture, "unreadable", str(error)))
            return
        self._waiting[kept.seq] = picture
        self._kept += 1
        await self._produce(self._outgoing(kept))

    def _outgoing(self, kept: KeptFrame) -> Outgoing:
        """Return the record that an agent would send for the frame, with the pipeline in a header."""
        row = Row(
            kind="frame",
            name=self._stream,
            epoch=self._epoch,
            seq=kept.seq,
            captured_ns=kept.captured_ns,
            record=kept.record,
            traceparent=h.new_traceparent(),
            account=h.account_text(kept.account) if kept.account else "",
        )
        record = outbound_record(row, LIVE)
        headers = {**record.headers, h.PIPELINE: self._pipeline.encode()}
        return Outgoing(record.topic, self._partition, record.value, key=record.key.encode(), headers=headers)

    async def _end(self) -> None:
        """Write the end of the epoch (capture run) in a heartbeat, as an agent does."""
        end = self._capture.end()
        status = CameraStatus(
            camera=self._stream, epoch=self._epoch, state="ended", captured=end.last + 1, kept=self._kept
        )
        beat = Heartbeat(
            service=SERVICE,
            instance=instance_name(),
            at_ns=self._clock.now_ns(),
            state="stopped",
            cameras=(status,),
            accounts=(end.tail,) if end.tail else (),
            ended=(EpochEnd(camera=self._stream, epoch=self._epoch, last=end.last, clean=True, reported=end.last),),
        )
        await self._produce(Outgoing(STATUS, 0, encode(beat), key=beat.instance.encode()))

    async def _produce(self, record: Outgoing) -> None:
        """Write a record to Kafka, and enter the record into the ledger after the acknowledgement."""
        at = await self._log.produce(record)
        written = LogRecord(record.topic, at.partition, at.offset, record.key, record.value, record.headers)
        ENTRY_BY_TOPIC[record.topic](self.ledger, written)

    async def _collect(self) -> bool:
        """Report the new outcomes of this run's pictures. Return whether a new outcome was found."""
        found = False
        for follower in self._followers:
            async with aclosing(follower.new()) as records:
                async for record in records:
                    frames = [one for one in h.frames_of(record.headers) if self._is_own(one)]
                    if frames:
                        ENTRY_BY_TOPIC[record.topic](self.ledger, record)
                    for frame in frames:
                        self._ended(frame, record)
                    found = found or bool(frames)
        return found

    def _ended(self, frame: FrameId, record: LogRecord) -> None:
        failure = h.read_failure(record.headers)
        if (record.topic == DEADLETTER and not failure) or frame.seq not in self._waiting:
            return  # the receipt of a replay, or a second end, which the ledger shows
        picture = self._waiting.pop(frame.seq)
        if failure:
            reason = f"{failure.stage}: {failure.error}: {failure.message}"
            self._answer(Answer(picture, "dead", reason, frame))
            return
        try:
            result = decode(Result, record.value)
        except CodecError as error:
            self._answer(Answer(picture, "unanswered", f"unreadable result: {error}", frame))
            return
        self._answer(Answer(picture, result.outcome, result.reason, frame, result))

    def _answer(self, answer: Answer) -> None:
        self.complete = self.complete and answer.outcome == "classified"
        self._on_answer(answer)

    def _is_own(self, frame: FrameId) -> bool:
        return frame.camera == self._stream and frame.epoch == self._epoch

    def _id(self, seq: int) -> FrameId:
        return FrameId(self._stream, self._epoch, seq)
