"""The models of a pipeline: their engines, and the decoders of the engines' outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion, OutputDecoder
from engines.decoders.boxes import one_per_object
from engines.engine import CHANNELS, Engine
from engines.exceptions import BadBatch, DeviceLost, EngineError, InferenceFailed, ManifestError, ModelLoadFailed
from engines.node.batchtime import BatchTime
from engines.node.jobs import Fill, ItemTask, copy_into
from engines.node.scheduler import MergedBatch, StageSeconds
from engines.noise import NOISE_IMAGES, noise_images
from engines.repository.canary import Canary, read_canary
from engines.repository.manifest import Manifest, Model
from engines.repository.store import Repository
from ingest.contract.records import Canvas, Detection, Pixels, Preparation, padded_place
from ingest.runtime import logs
from ingest.site import PipelineConfig, SecondModelConfig

_log = logs.get("engines.node")

Refine = Callable[[Sequence[ItemTask], list[list[Detection]]], list[list[Detection]]]
"""Function that adds attributes and embeddings to the detections of each task. The function may raise only
MemoryError and DeviceLost."""


MAX_KEPT_BYTES = 64 * 1024 * 1024
"""Maximum bytes of decoded frames that a batch keeps for its second-stage models: ten frames of 1080p. If the decoded
frames of a batch exceed ``MAX_KEPT_BYTES``, they are decoded again for the second-stage models."""


def unchanged(_: Sequence[ItemTask], found: list[list[Detection]]) -> list[list[Detection]]:
    """Return the detections unchanged."""
    return found


class EngineModel:
    """A model with its engine and the decoder of the engine's outputs."""

    def __init__(self, model: Model, engine: Engine, decoder: OutputDecoder) -> None:
        self.model = model
        self.batch_time = BatchTime()
        """Expected device time of a batch. Each part of the warm-up fills ``batch_time`` with its measured times."""
        self.is_warm = False
        """Whether the warm-up of all batch sizes is finished."""
        self._engine = engine
        self._decoder = decoder
        spec = model.manifest.input
        self._pad = spec.pad
        self._canvas = Canvas(spec.height, spec.width, CHANNELS)
        self._preparation = Preparation(self._canvas, spec.colour, spec.fit)

    @property
    def max_rows(self) -> int:
        """Maximum number of images merged into one batch.

        A batch of more images would only delay the results of its first images.
        """
        return self._engine.batch_size

    @property
    def slot_count(self) -> int:
        """Maximum number of batches in flight, including batches that are being filled or decoded."""
        return self._engine.slot_count

    def needs_build(self) -> bool:
        """Return whether ``open`` would first build a TensorRT plan, which takes minutes."""
        return self._engine.needs_build(self.model)

    def cancel_build(self) -> None:
        """Make a present or later call of ``open`` raise BuildCancelled instead of building a TensorRT plan.

        Any thread may call this method.
        """
        self._engine.cancel_build()

    def open(self, *, quickly: bool = False) -> None:
        """Load the model into the engine, warm the engine up, and try the decoder on outputs of the model.

        The model is ready when this method returns. If ``quickly`` is true, an engine that allows it is warm for
        single images only, and the caller calls ``finish_warm_up`` later. Raise ModelLoadFailed.
        """
        self._engine.load(self.model)
        self._engine.begin_warm_up()
        self._require_readable()
        self.batch_time = BatchTime(self._engine.warm_up_s)
        if not (quickly and self._engine.WARMS_UP_BESIDE_WORK):
            self.finish_warm_up()

    def finish_warm_up(self) -> None:
        """Warm the engine up for larger batches, also while other threads run batches. A second call does nothing.

        If this method raises EngineError, the model still runs batches of one image.
        """
        if not self.is_warm:
            self.is_warm = True
            self._engine.finish_warm_up()
            self.batch_time = BatchTime(self._engine.warm_up_s)

    def close(self) -> None:
        """Release the model."""
        self._engine.close()

    def _require_readable(self) -> None:
        """Raise ModelLoadFailed if the decoder cannot read the outputs of several images of noise.

        With a decoder that cannot read the outputs, every frame would become a dead letter.
        """
        height, width, _ = self._canvas
        outputs = self._engine.infer(noise_images(width, height))
        reason = decoders.refusal(self._decoder, outputs, [FrameRegion.whole(width, height)] * NOISE_IMAGES)
        if reason:
            manifest = self.model.manifest
            raise ModelLoadFailed(f"model {manifest.id}, decoder {manifest.decoder}: {reason}. Add the model again")

    def _run(self, rows: Sequence[FrameRegion], fills: Iterator[Fill], took: StageSeconds) -> list[list[Detection]]:
        """Return the detections of each row, using engine calls of at most ``max_rows`` images.

        ``fills`` yields, for each row, a function that writes the row's picture. Each function is called before the
        next is taken from ``fills``, so that ``fills`` may decode one frame after another.

        A batch item may contain thousands of one-pixel regions. Padding all regions of one batch item at once could
        take gigabytes of memory.
        """
        found: list[list[Detection]] = []
        most_rows = self.max_rows  # a warm-up in another thread may change it meanwhile
        for first in range(0, len(rows), most_rows):
            part = rows[first : first + most_rows]
            with self._engine.slot() as slot:
                started_s = time.perf_counter()
                for row, pixels, fill in zip(part, slot.pixels, fills, strict=False):
                    fill(padded_place(pixels, self._pad, row.region.inner))
                took.copy += time.perf_counter() - started_s
                outputs = self._engine.run(slot, len(part))
                took.compute += slot.compute_s
                started_s = time.perf_counter()
                found += self._decoder.decode(outputs, part)
                took.decode += time.perf_counter() - started_s
        return found


class ServedModel(EngineModel):
    """Classifies the batches of one pipeline, each of which is merged from one or more jobs. ``classify`` may be
    called from several threads at once.

    ``decoder`` replaces the decoder that the model's manifest names.
    """

    def __init__(
        self,
        pipeline: PipelineConfig,
        model: Model,
        engine: Engine,
        decoder: OutputDecoder | None = None,
    ) -> None:
        _require_match(pipeline, model.manifest)
        options = DecoderOptions.of(model.manifest, pipeline.min_score)
        super().__init__(model, engine, decoder or decoders.make(model.manifest.decoder, options))
        self._options = options
        self._merges = pipeline.regions == "tiles" and model.manifest.decoder not in decoders.CLASSIFIERS

    def classify(self, merged: MergedBatch, refine: Refine = unchanged) -> None:
        """Classify a merged batch, and set the detections of every task after ``refine`` has added attributes.

        If a task also fails in an engine call of its own, set the error of the task. Add the time that each stage
        took to ``merged.took``. Raise DeviceLost.
        """
        for job in merged.jobs:  # before the tasks settle, because a settled job may be written at once
            job.model = self.model.manifest.id
        self._settle(merged.tasks, merged.took, refine)

    def _settle(self, tasks: Sequence[ItemTask], took: StageSeconds, refine: Refine) -> None:
        try:
            detections = self._detect(tasks, took, keep=refine is not unchanged)
        except (MemoryError, DeviceLost):
            raise
        except Exception as error:  # an error of the backend or decoder may concern a single image
            if len(tasks) == 1:
                tasks[0].error = error if isinstance(error, EngineError) else InferenceFailed(repr(error))
                tasks[0].image = None
                return
            half = len(tasks) // 2  # bisection: one bad image among n costs about 2·log2(n) more engine calls
            self._settle(tasks[:half], took, refine)
            self._settle(tasks[half:], took, refine)
            return
        decoded = [task for task in tasks if task.error is None]
        found = [each for task, each in zip(tasks, detections, strict=True) if task.error is None]
        for task, refined in zip(decoded, refine(decoded, found), strict=True):
            task.detections, task.image = task.in_frame(refined), None

    def _detect(self, tasks: Sequence[ItemTask], took: StageSeconds, *, keep: bool) -> list[list[Detection]]:
        for task in tasks:
            if not task.preparation.suits(self._preparation):
                raise BadBatch(
                    f"the batch has pictures of {task.preparation}: model {self.model.manifest.id} expects "
                    f"{self._preparation}. If a pipeline gets another size or other channels, give it a new name"
                )
        keep = keep and sum(task.item.width * task.item.height for task in tasks) * CHANNELS <= MAX_KEPT_BYTES
        fills = (fill for task in tasks for fill in task.fills(self._preparation.colour, keep=keep))
        regions = [task.regions for task in tasks]
        found = iter(self._run(list(chain.from_iterable(regions)), fills, took))
        return [self._of_frame(rows, list(islice(found, len(rows)))) for rows in regions]

    def _of_frame(self, rows: Sequence[FrameRegion], found: Sequence[list[Detection]]) -> list[Detection]:
        if self._merges and len(rows) > 1:
            return one_per_object(rows, found, self._options)
        return [detection for each in found for detection in each]


class SecondModel(EngineModel):
    """A model that labels or describes objects that a pipeline's model has detected. ``label`` may be called from
    several threads.

    Raise ManifestError for a model that locates objects instead of labelling or describing its whole input.
    """

    def __init__(self, config: SecondModelConfig, model: Model, engine: Engine) -> None:
        manifest = model.manifest
        if manifest.decoder not in decoders.SECOND_STAGE:
            raise ManifestError(
                f"second model {config.name}: {manifest.id} has decoder {manifest.decoder}: expected a classifier or "
                f"a model of embeddings, with decoder {' or '.join(sorted(decoders.SECOND_STAGE))}"
            )
        options = DecoderOptions.of(manifest, config.min_score)
        super().__init__(model, engine, decoders.make(manifest.decoder, options))
        self._failing = False

    def label(self, rows: Sequence[FrameRegion], images: Sequence[Pixels]) -> list[list[Detection] | None]:
        """Return the labels or the embedding of each image as detections; None for an image that fails even in an
        engine call of its own.

        Each image has the model's colour order, and the size of ``region.inner`` in the image's FrameRegion. Raise
        MemoryError or DeviceLost.
        """
        found = self._label(rows, images)
        if rows and self._failing and None not in found:
            self._failing = False
            _log.info("second_model_works_again", model=self.model.manifest.id)
        return found

    def _label(self, rows: Sequence[FrameRegion], images: Sequence[Pixels]) -> list[list[Detection] | None]:
        try:
            return list(self._run(rows, (partial(copy_into, image) for image in images), StageSeconds()))
        except (MemoryError, DeviceLost):
            raise
        except Exception as error:  # as in a pipeline's model, one image may be the cause
            if len(rows) > 1:
                half = len(rows) // 2
                return self._label(rows[:half], images[:half]) + self._label(rows[half:], images[half:])
            if not self._failing:
                self._failing = True
                _log.error("second_model_failed", model=self.model.manifest.id, error=repr(error))
            return [None]


AnyModel = ServedModel | SecondModel


class RepositorySource:
    """Makes the models that a node serves, from a model repository.

    ``make_engine`` returns a new engine for a model. ``make_stand_in`` returns a substitute engine that loads within
    seconds, and serves while the model's own engine builds a TensorRT plan.
    """

    def __init__(
        self,
        repository: Repository,
        make_engine: Callable[[Model], Engine],
        make_stand_in: Callable[[Model], Engine] | None = None,
    ) -> None:
        self._repository = repository
        self._make_engine = make_engine
        self._make_stand_in = make_stand_in

    def version(self, wanted: PipelineConfig | SecondModelConfig) -> str:
        """Return the model version that the configuration names, or else the promoted version.

        Raise ModelUnknown or ManifestError.
        """
        name, version = self._repository.resolve(wanted.model)
        return f"{name}@{version}"

    def canary(self, pipeline: PipelineConfig) -> Canary | None:
        """Return the canary version of a pipeline's model; None if the model has no canary, or if the pipeline names
        a version.

        Raise ManifestError.
        """
        return None if "@" in pipeline.model else read_canary(self._repository, pipeline.model)

    def make(self, wanted: PipelineConfig | SecondModelConfig) -> AnyModel:
        """Return the model, which the caller must open. Raise EngineError."""
        return self._made(wanted, self._make_engine)

    def stand_in(self, wanted: PipelineConfig | SecondModelConfig) -> AnyModel | None:
        """Return the model on a substitute engine, which the caller must open; None if there is no substitute.

        Raise EngineError.
        """
        return self._made(wanted, self._make_stand_in) if self._make_stand_in else None

    def _made(self, wanted: PipelineConfig | SecondModelConfig, make_engine: Callable[[Model], Engine]) -> AnyModel:
        model = self._repository.open(wanted.model).at_precision(wanted.precision)
        if isinstance(wanted, PipelineConfig):
            return ServedModel(wanted, model, make_engine(model))
        return SecondModel(wanted, model, make_engine(model))


def _require_match(pipeline: PipelineConfig, manifest: Manifest) -> None:
    if not manifest.finds_objects:
        raise ManifestError(
            f"pipeline {pipeline.name}: model {manifest.id} has decoder {manifest.decoder}: expected a model that "
            "finds or labels objects. Name a model of embeddings in the pipeline's then"
        )
    spec = manifest.input
    for key in ("width", "height", "colour", "fit"):
        configured, wanted = getattr(pipeline, key), getattr(spec, key)
        if configured != wanted:
            raise ManifestError(
                f"pipeline {pipeline.name}: {key} = {configured!r}: model {manifest.id} expects {wanted!r}"
            )
