"""Latencies from the capture of a frame to each stage, from the newest records of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import aclosing
from typing import NamedTuple

import numpy as np

from console.live.view import YIELD_RECORDS
from ingest.contract.codec import MAX_JSON_BYTES, decode, decode_json
from ingest.contract.identity import LIVE
from ingest.contract.records import Alert, Event, Frame, Result
from ingest.contract.topics import ALERTS, EVENTS, FRAMES, RESULTS
from ingest.exceptions import CodecError
from ingest.kafka.log import Log, LogRecord

RECORDS = 200
"""Number of records at the end of each partition from which the latencies are computed."""
MAX_BYTES = 32 * 1024 * 1024
"""Number of bytes of frame records after which no further partition of ``frames`` is read."""
_STAMP_MS = 1.0
"""Resolution of the broker's timestamps, in ms."""


class StageLatency(NamedTuple):
    """Latencies from the capture to the record of one stage, in ms.

    ``error_ms`` is the maximum error of the capture times plus the error of the broker's timestamps. The error of a
    capture time is its difference from the clock of the agent's host. ``error_ms`` is None if no record states the
    error of its capture time. ``error_ms`` does not include the offset between the clocks of host and broker.
    """

    stage: str
    records: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    error_ms: float | None


class CapturedRecord(NamedTuple):
    """Camera, capture time in Unix ns, and error of the capture time in ms (None if unknown) of one record."""

    camera: str
    captured_ns: int
    error_ms: float | None = None


def _frame(record: LogRecord) -> CapturedRecord | None:
    frame = decode(Frame, record.value)
    return CapturedRecord(frame.camera, frame.captured_ns, frame.captured_error_ms)


def _result(record: LogRecord) -> CapturedRecord | None:
    result = decode(Result, record.value)
    is_live = result.lane == LIVE and result.outcome == "classified"
    return CapturedRecord(result.camera, result.captured_ns) if is_live else None


def _event(record: LogRecord) -> CapturedRecord | None:
    data = decode_json(Event, record.value, MAX_JSON_BYTES).data
    return CapturedRecord(data.camera, data.captured_ns) if data.camera and data.lane == LIVE else None


def _alert(record: LogRecord) -> CapturedRecord | None:
    data = decode_json(Alert, record.value, MAX_JSON_BYTES).data
    is_live = data.camera and data.lane == LIVE and data.change != "end"
    return CapturedRecord(data.camera or "", data.captured_ns) if is_live else None


STAGES: dict[str, tuple[str, Callable[[LogRecord], CapturedRecord | None]]] = {
    "frame": (FRAMES, _frame),
    "result": (RESULTS, _result),
    "event": (EVENTS, _event),
    "alert": (ALERTS, _alert),
}
"""For each stage, its topic and the function that reads a record of this topic, in the order of the pipeline."""


async def stage_latencies(log: Log, sees: Callable[[str], bool]) -> list[StageLatency]:
    """Return the latencies of the stages that have live records of a camera for which ``sees`` is true.

    Raise LogUnavailable.
    """
    found: list[StageLatency] = []
    error_ms: float | None = None
    for stage, (topic, read) in STAGES.items():
        latencies, errors = await _newest(log, topic, read, sees)
        error_ms = max(errors) if errors else error_ms  # later records do not repeat the error of the capture time
        if latencies:
            p50, p95, p99 = (round(float(value), 1) for value in np.quantile(latencies, (0.5, 0.95, 0.99)))
            error = None if error_ms is None else round(error_ms + _STAMP_MS, 1)
            found.append(StageLatency(stage, len(latencies), p50, p95, p99, error))
    return found


async def _newest(
    log: Log, topic: str, read: Callable[[LogRecord], CapturedRecord | None], sees: Callable[[str], bool]
) -> tuple[list[float], Collection[float]]:
    """Return the latencies of the newest records of a topic, and the known errors of their capture times."""
    latencies: list[float] = []
    errors: list[float] = []
    begins, size, count = await log.beginnings(topic), 0, 0
    for partition, end in (await log.ends(topic)).items():
        if size > MAX_BYTES:
            break
        start = max(begins.get(partition, 0), end - RECORDS)
        async with aclosing(log.read(topic, partition, start, end)) as records:
            async for record in records:
                size, count = size + len(record.value), count + 1
                if count % YIELD_RECORDS == 0:
                    await asyncio.sleep(0)
                try:
                    found = read(record)
                except CodecError:
                    continue
                if found and sees(found.camera):
                    latencies.append(record.timestamp_ms - found.captured_ns / 1e6)
                    errors += [] if found.error_ms is None else [found.error_ms]
    return latencies, errors
