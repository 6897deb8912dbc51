"""Jobs, which turn batch records into results and dead letters, and high-water marks, which recognise repeated
frames.

Pure.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from engines.decoders import FrameRegion
from engines.exceptions import BadBatch, EngineError, PipelineUnknown
from ingest import picture
from ingest.contract import headers as h
from ingest.contract.codec import MAX_RECORD_BYTES, decode, encode
from ingest.contract.crop import CropWindow
from ingest.contract.identity import FrameId, is_replay
from ingest.contract.records import Batch, BatchItem, Box, Detection, Pixels, Preparation, Region, Result, RoutedFrame
from ingest.contract.topics import RESULTS
from ingest.deadletter import parked
from ingest.exceptions import CodecError, PictureError
from ingest.kafka.log import LogRecord, Outgoing
from ingest.site.pipeline import MOTION_LABEL, MOTION_MODEL

STAGE = "engine"
OUT_OF_ORDER = "out_of_order"
"""Reason in the ledger for a frame that arrived after a later frame of its epoch (capture run). Sightline's own
agents write frames in order, so the frame comes from another producer."""
STALE = "stale"
"""Reason in the ledger for a live frame whose results would come more than ``freshness_s`` after its capture."""
EVERY_NTH = "every_nth"
"""Reason in the ledger for a live frame that was dropped because only every n-th frame is kept under overload."""
CROWDED = "crowded"
"""Reason in the ledger for a live frame that was dropped because newer frames of its camera wait: ``max_waiting``."""
LIGHTER = "lighter"
"""Reason in a result that the pipeline's lighter model produced because of overload."""
EPOCHS_KEPT = 1024
"""Maximum number of epochs (runs of a capture process) remembered per camera, lane and pipeline. The epoch that
received no frame for the longest time is forgotten first.

Even if a capture process fails at once and is restarted every few seconds, 1,024 epochs cover more than an hour. A
frame of a forgotten epoch is classified, never dropped as a repeat.
"""
SEEN_KEPT = 1024
"""Number of sequence numbers that are remembered per epoch (capture run): half a minute of frames from the fastest
camera."""


class _EpochMark:
    """The sequence numbers seen in one epoch (capture run). Numbers at or below ``floor`` are not remembered and
    count as seen."""

    __slots__ = ("floor", "highest", "seen")

    def __init__(self, floor: int) -> None:
        self.floor = self.highest = floor
        self.seen: set[int] = set()

    def add(self, seq: int) -> None:
        self.highest = max(self.highest, seq)
        self.seen.add(seq)
        if len(self.seen) > 2 * SEEN_KEPT:
            kept = sorted(self.seen)[-SEEN_KEPT:]
            self.seen, self.floor = set(kept), kept[0] - 1


class HighWaterMarks:
    """The highest sequence number seen and the latest lower numbers, per camera, lane, pipeline and epoch (capture
    run).

    Within a lane and an epoch, agents send frames in the order of their sequence numbers. After a crash, agents send
    frames again from an earlier number. A frame whose number is not above the highest number seen counts as a repeat.
    A frame with a lower number that was certainly never seen counts as out of order, not as a repeat.
    """

    def __init__(self) -> None:
        self._marks: dict[tuple[str, str, str], dict[int, _EpochMark]] = defaultdict(dict)

    def is_repeat(self, frame: FrameId, lane: str, pipeline: str) -> bool:
        """Return whether a frame was seen before. A frame whose number is too old to be remembered counts as seen."""
        mark = self._marks[frame.camera, lane, pipeline].get(frame.epoch)
        return mark is not None and (frame.seq <= mark.floor or frame.seq in mark.seen)

    def is_out_of_order(self, frame: FrameId, lane: str, pipeline: str) -> bool:
        """Return whether a later frame of the same epoch (capture run) was seen, and the frame itself was certainly
        never seen."""
        mark = self._marks[frame.camera, lane, pipeline].get(frame.epoch)
        return mark is not None and frame.seq < mark.highest and not self.is_repeat(frame, lane, pipeline)

    def advance(self, frame: FrameId, lane: str, pipeline: str, floor: int = -1) -> None:
        """Mark a frame as seen, and raise the highest number of the frame's epoch (capture run) if the frame's number
        is higher.

        If the frame is the first frame seen of its epoch, all numbers up to ``floor`` count as seen, too.
        """
        epochs = self._marks[frame.camera, lane, pipeline]
        mark = epochs.pop(frame.epoch, None) or _EpochMark(floor)
        mark.add(frame.seq)
        epochs[frame.epoch] = mark
        if len(epochs) > EPOCHS_KEPT:
            del epochs[next(iter(epochs))]

    def forget_numbers(self) -> None:
        """In each epoch (capture run), count all numbers up to the highest as seen, because a part of the history
        could not be read."""
        for mark in (mark for epochs in self._marks.values() for mark in epochs.values()):
            mark.floor, mark.seen = mark.highest, set()

    def advance_past(self, record: LogRecord) -> None:
        """Mark all frames in the headers of a result or dead letter as seen.

        Older results are not read back, so it is unknown which earlier frames have results. All numbers of a capture
        run below the first frame that is read back count as seen.
        """
        pipeline = h.pipeline_of(record.headers)
        lane = h.lane_of(record.headers, record.topic)
        for frame in h.frames_of(record.headers):
            self.advance(frame, lane, pipeline, floor=frame.seq - 1)


def copy_into(image: Pixels, into: Pixels) -> None:
    """Write a picture into an array of the same shape."""
    np.copyto(into, image)


def _draw(image: Pixels, window: CropWindow, colour: str, reduction: int, into: Pixels) -> None:
    picture.draw(image, window, colour, reduction=reduction, into=into)


def _leave(into: Pixels) -> None:
    """Write nothing."""


def _encoding(item: BatchItem) -> str:
    return item.attached.encoding if item.attached else ""


def _undistorted(region: Region) -> Region:
    """Return a region of an undistorted frame with its window as its box."""
    left, top, right, bottom = map(round, region.fit.to_frame(Box(*region.inner)))
    return region._replace(box=Box(left, top, right, bottom))


def _shed(item: BatchItem, reason: str) -> BatchItem:
    return item.model_copy(update={"outcome": "shed", "reason": reason, "regions": ()})


Fill = Callable[[Pixels], object]
"""Function that writes the picture of one region into an array ``(bottom - top, right - left, 3)`` uint8, such as a
part of an engine's input buffer."""


@dataclass(slots=True)
class ItemTask:
    """One batch item to classify.

    ``ServedModel.classify`` sets ``detections`` or ``error``.

    ``images`` holds the pictures of a cropped item's regions; it is empty if the item is not cropped. ``frame`` is
    the item's encoded frame at full resolution; it is empty if the batch holds no frame for the item.
    """

    item: BatchItem
    preparation: Preparation
    images: list[Pixels]
    frame: bytes = b""
    image: Pixels | None = None
    """Pixels of ``frame`` at full resolution, kept for the second-stage models; None if they are not kept."""
    detections: list[Detection] | None = None
    error: EngineError | PictureError | None = None
    model: str = ""
    """The model version that classified the item, if it is not the job's version."""

    @property
    def rows(self) -> int:
        """Number of regions. Each region is one row of a batch."""
        return len(self.item.regions)

    @property
    def nbytes(self) -> int:
        """Size of the pictures and of the encoded frame in bytes."""
        return sum(image.nbytes for image in self.images) + len(self.frame)

    def decoded(self, reduction: int = 1) -> Pixels:
        """Decode the attached frame to ``(height, width, 3)`` uint8, BGR, with the sides divided by ``reduction``.

        Undistort the frame of an item with a lens. Raise PictureError. The size in the picture's header is checked
        first, so that a small record cannot make the decoder allocate gigabytes.
        """
        size, encoding = (self.item.width, self.item.height), _encoding(self.item)
        picture.check(self.frame, encoding, size)
        image = picture.pixels(self.frame, encoding, size, reduction)
        return picture.undistorted(image, self.item.lens, reduction) if self.item.lens else image

    def fills(self, colour: str, *, keep: bool) -> Iterator[Fill]:
        """Yield for each region a function that writes the region's picture in the colour order ``colour``.

        Decode the frame of an item that is not cropped, as small as the regions allow. If the frame cannot be
        decoded, set ``error``; the yielded functions then write nothing. If ``keep`` is true, also keep the decoded
        frame in ``image`` for the second-stage models.
        """
        if self.item.cropped:
            yield from (partial(copy_into, image) for image in self.images)
            return
        size = self.item.width, self.item.height
        try:
            windows = [CropWindow.of(region, size) for region in self.item.regions]
            reduction = picture.reduction_for(windows, _encoding(self.item), size)
            image = self.decoded(reduction)
        except (PictureError, ValueError) as error:
            self.error = error if isinstance(error, PictureError) else BadBatch(str(error))
            yield from [_leave] * self.rows
            return
        if keep and reduction == 1:
            self.image = image
        for window in windows:
            yield partial(_draw, image, window, colour, reduction)

    @property
    def regions(self) -> list[FrameRegion]:
        """Regions of the item, in the order of ``fills``. With a lens, boxes are in px of the undistorted frame."""
        found = map(_undistorted, self.item.regions) if self.item.lens else self.item.regions
        return [FrameRegion(region, self.item.width, self.item.height) for region in found]

    def in_frame(self, detections: Sequence[Detection]) -> list[Detection]:
        """Return detections with their boxes in px of the frame as the camera sent it.

        With a lens, ``detections`` have boxes in px of the undistorted frame. A detection of a whole region gets the
        box of the region as the camera sent it. Drop objects of which the frame shows nothing.
        """
        lens, size = self.item.lens, (self.item.width, self.item.height)
        if lens is None:
            return list(detections)
        whole = {_undistorted(region).box: region.box for region in self.item.regions}
        boxes = [(whole.get(one.box) or lens.distorted_box(one.box)).clipped(*size) for one in detections]
        return [
            one.model_copy(update={"box": box})
            for one, box in zip(detections, boxes, strict=True)
            if box.width > 0.0 and box.height > 0.0
        ]

    @property
    def settled(self) -> bool:
        """Return whether the item is classified or has finally failed."""
        return self.detections is not None or self.error is not None


@dataclass(slots=True)
class Job:
    """One record of ``batches`` while the node processes it.

    Each of ``items`` gets a result or a dead letter, in the order of the items. ``tasks`` maps an index of ``items``
    to a task. Only items with pixels have a task. ``refused`` holds the dead letter of a record that cannot be read.
    A job whose items were all repeats has neither items nor ``refused``, but its offset is still committed.
    ``single`` is true for a batch of one item, whose original record can serve as the dead letter.
    """

    record: LogRecord
    pipeline: str = ""
    single: bool = False
    items: list[BatchItem] = field(default_factory=list)
    tasks: dict[int, ItemTask] = field(default_factory=dict)
    refused: list[Outgoing] = field(default_factory=list)
    model: str = ""
    reason: str = ""
    """Reason in the results of classified frames, if another model than the usual one classified the frames."""
    queued_ns: int = 0
    """Unix time in ns at which the job began to wait for an engine."""
    waiting_rows: int = 0
    """Number of regions that wait for an engine, set by ``measure_waiting``. Each region is one row of a batch."""
    captured_ns: int = 0
    """Earliest capture time (Unix, in ns) of the job's frames that wait for an engine, set by ``measure_waiting``."""
    deadline_ns: int = 0
    """Unix time in ns at which the results of the job are due."""
    finishes: tuple[int, ...] = ()
    """Offsets of frames that are finished once the results of the job are written, if this node prepared the frames
    itself. A job made from a record of ``batches`` finishes only this record."""
    out_of_order: list[FrameId] = field(default_factory=list)
    """Frames that are shed because a later frame of the same epoch (capture run) was read earlier."""

    @property
    def settled(self) -> bool:
        """Return whether every task of the job is classified or has finally failed."""
        return all(task.settled for task in self.tasks.values())

    def measure_waiting(self) -> None:
        """Set ``waiting_rows`` and ``captured_ns`` from the tasks that are not classified yet."""
        waiting = [task for task in self.tasks.values() if not task.settled]
        self.waiting_rows = sum(task.rows for task in waiting)
        self.captured_ns = min((task.item.captured_ns for task in waiting), default=0)

    def shed(self, reason: str, chosen: Callable[[BatchItem], bool]) -> int:
        """Shed the unclassified items for which ``chosen`` returns true, and return the number of shed items.

        Each shed item gets a result with ``reason``.
        """
        found = [index for index, task in self.tasks.items() if not task.settled and chosen(task.item)]
        for index in found:
            self.items[index] = _shed(self.tasks.pop(index).item, reason)
        return len(found)


def accept(record: LogRecord, marks: HighWaterMarks, pipelines: frozenset[str]) -> Job:
    """Turn a batch record into a job: drop repeated items, shed items that are out of order, and mark the items as
    seen in ``marks``.

    A batch that cannot be read becomes a dead letter with its original bytes. Items with pixels become dead letters
    if their pipeline is not in ``pipelines``. Frames that no pipeline accepts arrive without pixels under the
    pipeline name ``none``.
    """
    try:
        batch = decode(Batch, record.value)
    except CodecError as error:
        pipeline = h.pipeline_of(record.headers)
        return Job(record, refused=[parked(record, STAGE, error, pipeline)])
    job = Job(record, batch.pipeline, len(batch.items) == 1)
    lane, preparation = h.lane_of(record.headers, record.topic), batch.preparation
    for item, images, frame in zip(batch.items, batch.pictures(), batch.attached_frames(), strict=True):
        if is_replay(lane) and item.lane != lane:  # the body of a replayed batch names the original lane
            item = item.model_copy(update={"lane": lane})
        if marks.is_repeat(item.id, item.lane, batch.pipeline):
            continue
        if marks.is_out_of_order(item.id, item.lane, batch.pipeline):
            job.out_of_order.append(item.id)
            item = _shed(item, OUT_OF_ORDER)
        marks.advance(item.id, item.lane, batch.pipeline)
        if item.regions:
            job.tasks[len(job.items)] = ItemTask(item, preparation, images, frame)
        job.items.append(item)
    if batch.pipeline not in pipelines:
        for task in job.tasks.values():
            task.error = PipelineUnknown(
                f"pipeline {batch.pipeline!r} is not configured: apply the site again, then replay this dead letter"
            )
    return job


def results(job: Job, finished_ns: int) -> list[Outgoing]:
    """Return the records to write for a classified job: one result or dead letter per item, in the items' order."""
    records = list(job.refused)
    for index, item in enumerate(job.items):
        task = job.tasks.get(index)
        if task is None:
            records.append(_result(job, item, (), finished_ns))
        else:
            records.append(_outcome(job, item, task, finished_ns))
    return records


def _outcome(job: Job, item: BatchItem, task: ItemTask, finished_ns: int) -> Outgoing:
    """Return the result of an item, or the item's dead letter if the task failed or the result is too large."""
    if task.error is not None:
        return _dead_letter(job, task, task.error)
    try:
        return _result(job, item, task.detections or (), finished_ns, task.model)
    except CodecError as error:  # a foreign producer may send thousands of regions, each with many objects
        return _dead_letter(job, task, error)


def _dead_letter(job: Job, task: ItemTask, error: EngineError | PictureError | CodecError) -> Outgoing:
    """Return the dead letter of one item: a batch of only this item, which can be replayed alone."""
    canvas, colour, fit = task.preparation
    alone = Batch(
        pipeline=job.pipeline,
        **canvas._asdict(),
        colour=colour,
        fit=fit,
        items=(task.item,),
        pixels=b"".join(image.tobytes() for image in task.images),
        frames=task.frame,
    )
    value = encode(alone, sys.maxsize)
    if len(value) > MAX_RECORD_BYTES and job.single:  # a record near the size limit may exceed it when encoded again
        value = job.record.value
    record = replace(job.record, value=value, headers=_headers(task.item, job.pipeline))
    return parked(record, STAGE, error, job.pipeline)


def _result(
    job: Job, item: BatchItem, detections: Sequence[Detection], finished_ns: int, model: str = ""
) -> Outgoing:
    fields = item.fields_of(RoutedFrame)
    model = {"classify": model or job.model, "motion": MOTION_MODEL}.get(item.outcome, "")
    if item.outcome == "motion":
        detections = moving_objects(item)
    if item.outcome == "classify" and job.reason:
        fields["reason"] = job.reason
    result = Result(
        **fields,
        pipeline=job.pipeline,
        finished_ns=finished_ns,
        outcome=item.outcome if item.outcome in ("empty", "shed") else "classified",
        model=model,
        detections=tuple(detections),
        looked_at=tuple(region.box for region in item.regions),
    )
    headers = _headers(item, job.pipeline)
    return Outgoing(RESULTS, job.record.partition, encode(result), key=item.camera.encode(), headers=headers)


def moving_objects(item: BatchItem) -> tuple[Detection, ...]:
    """Return the moving and stationary boxes of an item as detections, for a pipeline without a model."""
    boxes = (*(item.motion or ()), *(item.resting or ()))
    return tuple(Detection(box=box, label=MOTION_LABEL, class_id=0, score=1.0) for box in boxes)


def _headers(item: BatchItem, pipeline: str) -> dict[str, bytes]:
    return h.frame_headers([item.id], item.lane, item.traceparent, pipeline)
