"""From a batch on the log to what is written about it. Pure: no engine, no Kafka, no clock."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from engines.decoders import FrameRegion
from engines.exceptions import EngineError, PipelineUnknown
from engines.node.marks import HighWaterMarks
from ingest.contract import headers as h
from ingest.contract.codec import decode, encode
from ingest.contract.identity import is_replay
from ingest.contract.records import Batch, BatchItem, Canvas, Detection, Pixels, Result, RoutedFrame
from ingest.contract.topics import RESULTS
from ingest.deadletter import parked
from ingest.exceptions import CodecError
from ingest.kafka.log import LogRecord, Outgoing

STAGE = "engine"


@dataclass(slots=True)
class ItemTask:
    """One item of a batch that is to be classified: its regions and their pictures, and what was found in them."""

    item: BatchItem
    canvas: Canvas
    pictures: list[Pixels]
    found: list[Detection] | None = None
    failed: EngineError | None = None

    @property
    def rows(self) -> list[FrameRegion]:
        """What its rows in the model's input show."""
        return [FrameRegion(region, self.item.width, self.item.height) for region in self.item.regions]

    @property
    def settled(self) -> bool:
        """Tell whether it has been classified, or failed for good."""
        return self.found is not None or self.failed is not None


@dataclass(slots=True)
class Job:
    """One record of ``batches`` on its way through the node.

    ``items`` are those to write results for, in order; ``tasks`` the ones among them with pixels. ``refused`` are
    dead letters. A job of repeats only has neither, and its offset is committed all the same.
    """

    record: LogRecord
    pipeline: str = ""
    items: list[BatchItem] = field(default_factory=list)
    tasks: dict[int, ItemTask] = field(default_factory=dict)
    refused: list[Outgoing] = field(default_factory=list)
    model: str = ""

    @property
    def settled(self) -> bool:
        """Tell whether nothing is left to classify."""
        return all(task.settled for task in self.tasks.values())

    @property
    def rows(self) -> int:
        """How many rows are left to classify."""
        return sum(len(task.pictures) for task in self.tasks.values() if not task.settled)


def accept(record: LogRecord, marks: HighWaterMarks, pipelines: frozenset[str]) -> Job:
    """Read a batch, leave out what has been classified before, and raise the marks.

    A batch that cannot be read, or whose pipeline is unknown, becomes a dead letter with its original bytes. The
    pipeline ``none`` holds frames that no pipeline wants: they need no engine.
    """
    try:
        batch = decode(Batch, record.value)
    except CodecError as error:
        return Job(record, refused=[parked(record, STAGE, error, _said_pipeline(record))])
    job, pictures = Job(record, batch.pipeline), iter(batch.pictures())
    for item in batch.items:
        own = list(itertools.islice(pictures, len(item.regions)))
        item = _on_lane(item, record)
        if marks.is_repeat(item.id, item.lane, batch.pipeline):
            continue
        marks.advance(item.id, item.lane, batch.pipeline)
        if own:
            job.tasks[len(job.items)] = ItemTask(item, batch.canvas, own)
        job.items.append(item)
    if batch.pipeline not in pipelines:
        for task in job.tasks.values():
            task.failed = PipelineUnknown(f"{batch.pipeline!r}: apply the site again, then replay this")
    return job


def results(job: Job, finished_ns: int) -> list[Outgoing]:
    """Return what to write about a settled job: a result or a dead letter per item, in the batch's order."""
    written = list(job.refused)
    for index, item in enumerate(job.items):
        task = job.tasks.get(index)
        if task is not None and task.failed is not None:
            written.append(refuse(job, task))
        else:
            found = task.found if task is not None else None
            written.append(_result(job, item, found, finished_ns))
    return written


def refuse(job: Job, task: ItemTask) -> Outgoing:
    """Return the dead letter of one item: a batch of it alone, so that it can be replayed without the others."""
    alone = Batch(
        pipeline=job.pipeline,
        **task.canvas._asdict(),
        items=(task.item,),
        pixels=b"".join(picture.tobytes() for picture in task.pictures),
    )
    record = LogRecord(
        topic=job.record.topic,
        partition=job.record.partition,
        offset=job.record.offset,
        key=job.record.key,
        value=encode(alone),
        headers=_headers(task.item, job.pipeline),
    )
    return parked(record, STAGE, task.failed or EngineError("failed"), job.pipeline)


def _result(job: Job, item: BatchItem, found: Sequence[Detection] | None, finished_ns: int) -> Outgoing:
    result = Result(
        **item.fields_of(RoutedFrame),
        pipeline=job.pipeline,
        finished_ns=finished_ns,
        outcome="classified" if item.outcome == "classify" else item.outcome,
        model=job.model if item.outcome == "classify" else "",
        detections=tuple(found or ()),
        looked_at=tuple(region.box for region in item.regions),
    )
    headers = _headers(item, job.pipeline)
    return Outgoing(RESULTS, job.record.partition, encode(result), key=item.camera.encode(), headers=headers)


def _headers(item: BatchItem, pipeline: str) -> dict[str, bytes]:
    return h.frame_headers([item.id], item.lane, item.traceparent, pipeline)


def _on_lane(item: BatchItem, record: LogRecord) -> BatchItem:
    """A replay says its lane in the header: the bytes are the original ones."""
    lane = h.lane_of(record.headers, record.topic)
    return item.model_copy(update={"lane": lane}) if is_replay(lane) and item.lane != lane else item


def _said_pipeline(record: LogRecord) -> str:
    return record.headers.get(h.PIPELINE, b"").decode(errors="replace")


def see(record: LogRecord, marks: HighWaterMarks) -> None:
    """Raise marks to what a result, or the dead letter of a batch, says has been dealt with."""
    pipeline = _said_pipeline(record)
    lane = h.lane_of(record.headers, record.topic)
    for frame in h.frames_of(record.headers):
        marks.advance(frame, lane, pipeline)
