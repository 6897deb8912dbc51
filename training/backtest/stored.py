"""Read the stored results of a partition in step with the frames of a backtest."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection

from ingest.contract import headers as h
from ingest.contract.codec import decode
from ingest.contract.records import Result
from ingest.contract.topics import RESULTS
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord, TopicPartition
from stream.explain.search import MARGIN_MS
from training.backtest.core import ResultKey
from training.backtest.plan import BacktestPlan

MAX_WAITING = 100_000
"""Maximum number of results that are held until their frames are tested, of 1 to 2 kB each. The reader gets this far
ahead of the frames only if a camera has no results, or if the live pipeline was hours late."""


class StoredResults:
    """The results of the tested cameras and pipelines in one lane, from the time at which the first frame was
    written.

    The results of a camera, lane and pipeline have the order of the frames. The reader stops as soon as it has found
    the result of the last wanted frame, or of a later frame, or holds ``MAX_WAITING`` results. Call ``close``
    afterwards.
    """

    def __init__(self, log: Log, frames: TopicPartition, plan: BacktestPlan) -> None:
        self._log, self._tp, self._plan = log, TopicPartition(RESULTS, frames.partition), plan
        self._lane = h.lane_of({}, frames.topic)
        self._kept = {
            (camera.name, pipeline.name)
            for camera in plan.cameras
            for pipeline in plan.pipelines
            if pipeline.wants(camera.name)
        }
        self._records: AsyncGenerator[LogRecord, None] | None = None
        self._waiting: dict[ResultKey, bytes] = {}
        self._read: dict[tuple[str, str, str], tuple[int, int]] = {}
        """Epoch and sequence number of the latest result, by camera, lane and pipeline."""
        self._taken: dict[tuple[str, str, str], tuple[int, int]] = {}
        """Epoch and sequence number of the latest frame that was asked for, by camera, lane and pipeline."""
        self._ended = False

    async def open(self) -> None:
        """Begin to read the results that were written since the first frame. Raise LogUnavailable."""
        end = (await self._log.ends(RESULTS)).get(self._tp.partition, 0)
        start = min(await self._log.offset_at(self._tp, self._plan.warm_ms - MARGIN_MS), end)
        self._records = self._log.read(*self._tp, start, end)

    async def take(self, wanted: Collection[ResultKey]) -> dict[ResultKey, Result]:
        """Return the results of frames, in any order. Leave out results that the log does not have.

        Raise LogUnavailable.
        """
        while not self._ended and any(map(self._may_follow, wanted)) and self._has_room():
            await self._read_next()
        for key in wanted:
            self._taken[key.frame.camera, key.lane, key.pipeline] = key.frame.epoch, key.frame.seq
        found = {key: self._waiting.pop(key) for key in wanted if key in self._waiting}
        decoded = {key: _decoded(value) for key, value in found.items()}
        return {key: result for key, result in decoded.items() if result}

    async def close(self) -> None:
        """Release the connection."""
        if self._records:
            await self._records.aclose()

    def _may_follow(self, key: ResultKey) -> bool:
        if key in self._waiting:
            return False
        read = self._read.get((key.frame.camera, key.lane, key.pipeline))
        return read is None or read < (key.frame.epoch, key.frame.seq)

    def _has_room(self) -> bool:
        """Return whether another result may be held. If too many are held, first drop results that came too late."""
        if len(self._waiting) >= MAX_WAITING:
            self._waiting = {key: value for key, value in self._waiting.items() if self._may_be_wanted(key)}
        return len(self._waiting) < MAX_WAITING

    def _may_be_wanted(self, key: ResultKey) -> bool:
        """Return whether neither the frame of a result nor a later frame of its camera was asked for yet."""
        taken = self._taken.get((key.frame.camera, key.lane, key.pipeline))
        return taken is None or taken < (key.frame.epoch, key.frame.seq)

    async def _read_next(self) -> None:
        record = await anext(self._records, None) if self._records else None
        if record is None:
            self._ended = True
            return
        lane = h.lane_of(record.headers, record.topic)
        pipeline = h.pipeline_of(record.headers)
        for frame in h.frames_of(record.headers):
            if lane == self._lane and (frame.camera, pipeline) in self._kept:
                self._read[frame.camera, lane, pipeline] = frame.epoch, frame.seq
                self._waiting[ResultKey(frame, lane, pipeline)] = record.value


def _decoded(value: bytes) -> Result | None:
    try:
        return decode(Result, value)
    except CodecError:
        return None
