"""Jobs: batch records on their way to results and dead letters, and the marks that recognise repeated frames.

Pure: no engine, no Kafka, no clock.
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engines.decoders import FrameRegion
from engines.exceptions import EngineError, PipelineUnknown
from ingest.contract import headers as h
from ingest.contract.codec import MAX_RECORD_BYTES, decode, encode
from ingest.contract.identity import FrameId, is_replay
from ingest.contract.records import Batch, BatchItem, Canvas, Detection, Pixels, Result, RoutedFrame
from ingest.contract.topics import RESULTS
from ingest.deadletter import parked
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord, Outgoing

STAGE = "engine"
EPOCHS_KEPT = 64
"""Maximum epochs per camera, lane and pipeline; the oldest is forgotten first.

An epoch is one run of a capture process, and a spool drains long before the 64th restart. A frame of a forgotten
epoch is classified, never dropped as a repeat.
"""


class HighWaterMarks:
    """Highest sequence number seen, per camera, lane, pipeline and epoch.

    Within a lane and an epoch, frames arrive in the order of their sequence numbers. After a crash they arrive again
    from an earlier number. Therefore every frame at or below the mark is a repeat.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[str, str, str], dict[int, int]] = defaultdict(dict)

    def is_repeat(self, frame: FrameId, lane: str, pipeline: str) -> bool:
        """Return whether a frame is at or below its mark."""
        return frame.seq <= self._marks[frame.camera, lane, pipeline].get(frame.epoch, -1)

    def advance(self, frame: FrameId, lane: str, pipeline: str) -> None:
        """Raise the mark to a frame. A frame below the mark does not change it."""
        epochs = self._marks[frame.camera, lane, pipeline]
        epochs[frame.epoch] = max(frame.seq, epochs.get(frame.epoch, -1))
        if len(epochs) > EPOCHS_KEPT:
            del epochs[min(epochs)]

    def advance_past(self, record: LogRecord) -> None:
        """Raise the marks to all frames that the headers of a result or of a dead letter name."""
        pipeline = record.headers.get(h.PIPELINE, b"").decode(errors="replace")
        lane = h.lane_of(record.headers, record.topic)
        for frame in h.frames_of(record.headers):
            self.advance(frame, lane, pipeline)


@dataclass(slots=True)
class ItemTask:
    """One batch item to classify: the images of its regions, later its detections or its error."""

    item: BatchItem
    canvas: Canvas
    images: list[Pixels]
    detections: list[Detection] | None = None
    error: EngineError | None = None

    @property
    def regions(self) -> list[FrameRegion]:
        """Regions of the item, in the order of ``images``."""
        return [FrameRegion(region, self.item.width, self.item.height) for region in self.item.regions]

    @property
    def settled(self) -> bool:
        """Return whether the item is classified or has failed for good."""
        return self.detections is not None or self.error is not None


@dataclass(slots=True)
class Job:
    """One record of ``batches`` on its way through the node.

    Each of ``items`` gets a result or a dead letter, in this order. ``tasks`` maps an index of ``items`` to its task;
    only items with pixels have one. ``refused`` holds the dead letter of a record that cannot be read. A job whose
    items were all repeats has none of these; its offset is committed all the same. ``single`` marks a batch of one
    item, which is its own dead letter.
    """

    record: LogRecord
    pipeline: str = ""
    single: bool = False
    items: list[BatchItem] = field(default_factory=list)
    tasks: dict[int, ItemTask] = field(default_factory=dict)
    refused: list[Outgoing] = field(default_factory=list)
    model: str = ""

    @property
    def settled(self) -> bool:
        """Return whether all tasks are settled."""
        return all(task.settled for task in self.tasks.values())

    @property
    def rows(self) -> int:
        """Number of rows, one per region, that are not classified yet."""
        return sum(len(task.images) for task in self.tasks.values() if not task.settled)


def accept(record: LogRecord, marks: HighWaterMarks, pipelines: frozenset[str]) -> Job:
    """Turn a batch record into a job: drop repeated items, and raise the marks to the others.

    A batch that cannot be read becomes a dead letter with its original bytes. Items with pixels become dead letters
    if their pipeline is not in ``pipelines``. Frames that no pipeline takes come under the pipeline name ``none``,
    without pixels.
    """
    try:
        batch = decode(Batch, record.value)
    except CodecError as error:
        pipeline = record.headers.get(h.PIPELINE, b"").decode(errors="replace")
        return Job(record, refused=[parked(record, STAGE, error, pipeline)])
    job, images = Job(record, batch.pipeline, len(batch.items) == 1), iter(batch.pictures())
    lane = h.lane_of(record.headers, record.topic)
    for item in batch.items:
        item_images = list(itertools.islice(images, len(item.regions)))
        if is_replay(lane) and item.lane != lane:  # only the header names a replay's lane: the bytes are the original
            item = item.model_copy(update={"lane": lane})
        if marks.is_repeat(item.id, item.lane, batch.pipeline):
            continue
        marks.advance(item.id, item.lane, batch.pipeline)
        if item_images:
            job.tasks[len(job.items)] = ItemTask(item, batch.canvas, item_images)
        job.items.append(item)
    if batch.pipeline not in pipelines:
        for task in job.tasks.values():
            task.error = PipelineUnknown(
                f"pipeline {batch.pipeline!r} is not configured: apply the site again, then replay this dead letter"
            )
    return job


def results(job: Job, finished_ns: int) -> list[Outgoing]:
    """Return the records to write for a settled job: a result or a dead letter per item, in the batch's order."""
    records = list(job.refused)
    for index, item in enumerate(job.items):
        task = job.tasks.get(index)
        if task is not None and task.error is not None:
            records.append(_dead_letter(job, task, task.error))
        else:
            detections = task.detections if task is not None else None
            records.append(_result(job, item, detections or (), finished_ns))
    return records


def _dead_letter(job: Job, task: ItemTask, error: EngineError) -> Outgoing:
    """Return the dead letter of one item: a batch of this item alone, so that it can be replayed by itself."""
    alone = Batch(
        pipeline=job.pipeline,
        **task.canvas._asdict(),
        items=(task.item,),
        pixels=b"".join(image.tobytes() for image in task.images),
    )
    value = encode(alone, sys.maxsize)
    if len(value) > MAX_RECORD_BYTES and job.single:  # encoded again, a record near the limit may be over it
        value = job.record.value
    record = replace(job.record, value=value, headers=_headers(task.item, job.pipeline))
    return parked(record, STAGE, error, job.pipeline)


def _result(job: Job, item: BatchItem, detections: Sequence[Detection], finished_ns: int) -> Outgoing:
    result = Result(
        **item.fields_of(RoutedFrame),
        pipeline=job.pipeline,
        finished_ns=finished_ns,
        outcome="classified" if item.outcome == "classify" else item.outcome,
        model=job.model if item.outcome == "classify" else "",
        detections=tuple(detections),
        looked_at=tuple(region.box for region in item.regions),
    )
    headers = _headers(item, job.pipeline)
    return Outgoing(RESULTS, job.record.partition, encode(result), key=item.camera.encode(), headers=headers)


def _headers(item: BatchItem, pipeline: str) -> dict[str, bytes]:
    return h.frame_headers([item.id], item.lane, item.traceparent, pipeline)
