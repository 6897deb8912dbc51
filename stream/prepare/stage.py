"""The stage ``prepare`` reads frames and writes batches. A frame that cannot be prepared becomes a dead letter."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from ingest import picture
from ingest.contract.crop import CropWindow
from ingest.contract.groups import ENGINES, FUSED_CLIENT, PREPARE_LATE, PREPARE_LIVE
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import BatchItem, Box, EncodedFrame, FrameMeta, FrameRef, Lens, Pixels
from ingest.contract.topics import BATCHES, BATCHES_LATE, FRAMES, FRAMES_LATE
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.kafka.membership import require_no_members
from ingest.runtime.clock import Clock, SystemClock
from ingest.site import CameraConfig, PipelineConfig
from ingest.site.lens import LensConfig
from ingest.site.pipeline import MAX_PIXEL_BYTES, LightStep
from ingest.site.topic.view import Config
from stream.prepare.batcher import UNROUTED, BatchEntry, Batcher, PipelinePlan, plans
from stream.prepare.decode import DeliveredFrame, read_frame, with_frame_header
from stream.prepare.denoise import DenoiseKind, DenoiserCache
from stream.prepare.regions import MAX_BOXES, merged, resting_beside, usable, windows
from stream.prepare.steps import REDUCTION, changes
from stream.runner.backpressure import Downstream
from stream.runner.processor import ParkingProcessor, Work

USUAL_BATCHES = 8
"""Maximum number of batches per partition that wait for the engines while engine nodes keep up. While more batches
wait, ``prepare`` collects frames, because a batch of several frames costs less per frame."""
MAX_WAITING_BATCHES = 512
"""Maximum number of batches per partition that wait for the engines: at most 3 GiB of the 4 GiB that the topic
retains per partition. An engine node needs minutes to process ``MAX_WAITING_BATCHES`` batches."""
STALE = "stale"
"""Ledger reason for a frame that is too old for its pipeline."""
STILL = "still"
"""Ledger reason for a frame without motion."""
UNKNOWN_MOTION = "unknown_motion"
"""Ledger reason for a frame that a pipeline without a model cannot use, because the agent sent no moving boxes. The
agent sends no boxes if ``gate.motion`` is off."""
NOBODY = "unrouted"
"""Ledger reason for a frame that no pipeline wants."""

_Wanted = tuple[DenoiseKind, float, tuple[LightStep, ...]]
"""Key of a filtered frame: kind of the noise filter, its time budget in ms, and the steps that correct the light."""
_LANES = {LIVE: (PREPARE_LIVE, FRAMES, BATCHES), LATE: (PREPARE_LATE, FRAMES_LATE, BATCHES_LATE)}


class PrepareStage:
    """The stage that prepares the frames of one lane (live or late) for all pipelines of a site.

    Raise ConfigError for a pipeline that cannot be served.
    """

    def __init__(self, lane: Literal["live", "late"], config: Config, clock: Clock | None = None) -> None:
        self.name, source, self.target = _LANES[lane]
        self.topics = (source,)
        self.downstream = Downstream(ENGINES, self.target, USUAL_BATCHES, MAX_WAITING_BATCHES)
        self.clock = clock or SystemClock()
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Use other pipelines and lenses from the next frame on.

        An open batch of a changed pipeline closes before the next frame is added. Each item of a batch has the lens
        of its frame, so a batch stays open when a lens changes.
        """
        self.plans = plans(config.of(PipelineConfig))
        self.lenses = {camera.name: camera.lens for camera in config.of(CameraConfig) if camera.lens}
        self.config = config

    async def open(self, tp: TopicPartition, position: int, log: Log) -> PrepareProcessor:
        """Create the state of a partition without reading records back.

        Raise HostConflict while engine nodes with ``--fused`` run, because they prepare the same frames. If a process
        is killed, the frames of its open batches are not committed, and the next owner reads them again. After a
        restart, a denoiser estimates the noise level again within a few frames.
        """
        advice = "engine nodes with --fused prepare these frames: stop them, or stop `sightline prepare`"
        await require_no_members(log, ENGINES, FUSED_CLIENT, advice)
        return self.processor(tp)

    def processor(self, tp: TopicPartition) -> PrepareProcessor:
        """Create the state of a partition, for the runner and for engine nodes with ``--fused``."""
        batcher = Batcher(self.target, tp.partition, self.clock)
        return PrepareProcessor(self.name, lambda: self.plans, lambda: self.lenses, batcher, self.clock)


class PrepareProcessor(ParkingProcessor[list[BatchEntry]]):
    """The processor that puts the frames of one partition into batches.

    ``pipelines`` returns the batch limits of each pipeline of the configuration in force, and ``lenses`` the lens of
    each camera that has one.
    """

    in_event_loop = True

    def __init__(
        self,
        stage: str,
        pipelines: Callable[[], tuple[PipelinePlan, ...]],
        lenses: Callable[[], Mapping[str, LensConfig]],
        batcher: Batcher,
        clock: Clock,
    ) -> None:
        super().__init__(stage)
        self._plans = pipelines
        self._lenses = lenses
        self._batcher = batcher
        self._clock = clock
        self._denoisers = DenoiserCache()

    @property
    def deadline(self) -> float | None:
        """Time when the first open batch must close, on the monotonic clock in seconds."""
        return self._batcher.deadline

    def tick(self) -> Sequence[Work]:
        """Close the batches whose maximum delay has passed."""
        return self._batcher.due()

    def idle(self) -> Sequence[Work]:
        """Close all batches. The runner calls this method while engine nodes keep up, so that no frame waits for
        other frames."""
        return self._batcher.flush()

    def flush(self) -> Sequence[Work]:
        """Close all batches."""
        return self._batcher.flush()

    def _emit(self, record: LogRecord, outcome: list[BatchEntry]) -> Sequence[Work]:
        return self._batcher.add(record.offset, outcome)

    def _identified(self, record: LogRecord) -> LogRecord:
        return with_frame_header(record)

    def _decide(self, record: LogRecord) -> list[BatchEntry]:
        frame = read_frame(record)
        wanted = [(p, p.config) for p in self._plans() if p.config and _wants(p.config, frame)]
        names = tuple(plan.name for plan, _ in wanted) or (UNROUTED.name,)
        if not wanted:
            return [BatchEntry.of(UNROUTED, _item(frame, names, "empty", NOBODY))]
        clean: dict[_Wanted, Pixels | None] = {}
        return [self._entry(frame, plan, config, names, clean) for plan, config in wanted]

    def _entry(
        self,
        frame: DeliveredFrame,
        plan: PipelinePlan,
        config: PipelineConfig,
        names: tuple[str, ...],
        clean: dict[_Wanted, Pixels | None],
    ) -> BatchEntry:
        seen = _seen(frame) if config.regions == "motion" or not config.has_model else {}
        if seen and frame.frame.motion == () and not seen["resting"]:
            return BatchEntry.of(plan, _item(frame, names, "empty", STILL, **seen))
        if self._is_stale(frame, config.freshness_s):
            return BatchEntry.of(plan, _item(frame, names, "shed", STALE, **seen))
        if not config.has_model:
            return BatchEntry.of(plan, _moving(frame, names, seen))
        lens = self._lens(frame, config)
        found = windows(config, frame.size, frame.frame.motion, plan.regions, seen.get("resting") or (), lens)
        image = self._improved(frame, _wanted(config), clean)
        carried = image is None and _is_worth_carrying(frame, config, found)
        pictures = () if carried else tuple(_pictures(frame, image, config.colour, found, lens))
        encoded = frame.frame.image if carried or (config.then and _has_room(frame, pictures)) else b""
        attached = EncodedFrame(frame.frame.encoding, len(encoded)) if encoded else None
        regions = tuple(window.region for window in found)
        cropped = not carried
        item = _item(frame, names, "classify", regions=regions, attached=attached, cropped=cropped, lens=lens, **seen)
        return BatchEntry.of(plan, item, pictures, encoded)

    def _lens(self, frame: DeliveredFrame, config: PipelineConfig) -> Lens | None:
        """Return the lens whose distortion a pipeline corrects; None if the frame stays as the camera sent it."""
        if "distortion" not in config.steps or frame.pipeline:  # a single picture belongs to no camera
            return None
        found = self._lenses().get(frame.frame.camera)
        return found.lens(*frame.size) if found else None

    def _improved(self, frame: DeliveredFrame, wanted: _Wanted, clean: dict[_Wanted, Pixels | None]) -> Pixels | None:
        """Return the pixels of a frame after ``denoise`` and steps; None if the frame stays as it is.

        ``clean`` keeps filtered pixels for the frame's other pipelines, because a noise filter must see each frame
        only once.
        """
        if wanted not in clean:
            kind, budget_ms, steps = wanted
            if steps:
                clean[wanted] = _corrected(frame, self._improved(frame, (kind, budget_ms, ()), clean), steps)
            else:
                clean[wanted] = self._denoisers.denoise(frame, kind, budget_ms)
        return clean[wanted]

    def _is_stale(self, frame: DeliveredFrame, freshness_s: float) -> bool:
        age_ns = self._clock.now_ns() - frame.frame.captured_ns
        return freshness_s > 0.0 and frame.lane == LIVE and age_ns > freshness_s * 1e9


def _corrected(frame: DeliveredFrame, image: Pixels | None, steps: tuple[LightStep, ...]) -> Pixels | None:
    """Return the pixels of a frame after ``steps``; ``image`` if the frame needs no step. ``image`` has the pixels of
    a frame that ``denoise`` changed, and is None for other frames."""
    for change in changes(steps, _reduced(frame, image)):
        image = change(frame.image() if image is None else image)
    return image


def _reduced(frame: DeliveredFrame, image: Pixels | None) -> Pixels:
    """Return the pixels of a frame with the sides divided by ``REDUCTION``: decoded at that size, or every eighth row
    and column of the decoded pixels."""
    if image is None and frame.frame.encoding == "jpeg":
        return frame.image(REDUCTION)
    return (frame.image() if image is None else image)[::REDUCTION, ::REDUCTION]


def _wanted(config: PipelineConfig) -> _Wanted:
    """Return the filter and the light steps of a pipeline. Only the filter ``auto`` has a time budget. Pipelines with
    the same filter share one denoiser, whatever their budgets are, unless the filter is ``auto``."""
    budget_ms = config.denoise_budget_ms if config.denoise == "auto" else math.inf
    return config.denoise, budget_ms, config.light_steps


def _wants(pipeline: PipelineConfig, frame: DeliveredFrame) -> bool:
    """Return whether a pipeline processes a frame. A single picture names its pipeline, and belongs to no camera."""
    return pipeline.name == frame.pipeline if frame.pipeline else pipeline.wants(frame.frame.camera)


def _is_worth_carrying(frame: DeliveredFrame, config: PipelineConfig, found: Sequence[CropWindow]) -> bool:
    """Return whether the batch carries the encoded frame in place of the pictures of its regions.

    The batch carries the encoded frame if it is smaller than the pictures, or if second-stage models need it anyway.
    The engine node decodes a frame that the batch carries, so ``prepare`` need not decode it (decision 18).
    """
    pixels_bytes = 3 * sum(window.region.inner.area for window in found)
    return len(frame.frame.image) <= (MAX_PIXEL_BYTES if config.then else min(pixels_bytes, MAX_PIXEL_BYTES))


def _pictures(
    frame: DeliveredFrame, image: Pixels | None, colour: str, found: Sequence[CropWindow], lens: Lens | None
) -> Iterator[Pixels]:
    """Yield the picture of each window, cut out of ``image``. If ``image`` is None, decode the frame in the same way
    as an engine node does. With a ``lens``, undistort the frame first."""
    reduction = 1 if image is not None else picture.reduction_for(found, frame.frame.encoding, frame.size)
    if image is None:
        image = frame.image(reduction)
    if lens:
        image = picture.undistorted(image, lens, reduction)
    for window in found:
        yield picture.draw(image, window, colour, reduction=reduction)


def _has_room(frame: DeliveredFrame, pictures: Sequence[Pixels]) -> bool:
    """Return whether the encoded frame and the pictures of the frame's regions fit into one record together."""
    return len(frame.frame.image) + sum(each.nbytes for each in pictures) <= MAX_PIXEL_BYTES


def _seen(frame: DeliveredFrame) -> dict[str, Any]:
    """Return the usable moving boxes (key ``motion``) and stationary boxes (key ``resting``) that the agent sent. A
    value is None if the agent sent no list, more than ``MAX_BOXES`` boxes, or only unusable boxes."""
    boxes = {"motion": frame.frame.motion, "resting": frame.frame.resting}
    return {key: _usable(found, frame.size) for key, found in boxes.items()}


def _usable(boxes: tuple[Box, ...] | None, size: tuple[int, int]) -> tuple[Box, ...] | None:
    if boxes is None or len(boxes) > MAX_BOXES:
        return None
    found = tuple(usable(boxes, size))
    return found if found or not boxes else None


def _moving(frame: DeliveredFrame, names: tuple[str, ...], seen: dict[str, Any]) -> BatchItem:
    """Return the batch item of a frame, in which the boxes that the agent sent are the detected objects. Boxes of one
    object are merged."""
    if seen["motion"] is None:
        return _item(frame, names, "shed", UNKNOWN_MOTION, **seen)
    moving = tuple(merged(seen["motion"]))
    resting = tuple(resting_beside(moving, seen["resting"] or ()))
    return _item(frame, names, "motion", motion=moving, resting=resting)


def _item(frame: DeliveredFrame, names: tuple[str, ...], outcome: Any, reason: str = "", **shown: Any) -> BatchItem:
    body, source = frame.frame, frame.record
    return BatchItem(
        **{**body.fields_of(FrameMeta), "motion": None, "resting": None, **shown},
        lane=frame.lane,
        source=FrameRef(source.topic, source.partition, source.offset),
        pipelines=names,
        outcome=outcome,
        reason=reason,
        withheld=body.account.counts if body.account else {},
        traceparent=frame.traceparent,
    )
