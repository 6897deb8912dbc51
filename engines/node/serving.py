"""The served model of a pipeline: its engine, and the decoder of the engine's outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion, OutputDecoder
from engines.engine import CHANNELS, Engine
from engines.exceptions import BadBatch, DeviceLost, EngineError, InferenceFailed, ManifestError, ModelLoadFailed
from engines.node.jobs import ItemTask
from engines.node.scheduler import MergedBatch
from engines.repository.manifest import Manifest, Model
from engines.repository.store import Repository
from ingest.contract.records import Canvas, Detection, pad_into
from ingest.site import PipelineConfig


class ServedModel:
    """A classifier of one pipeline's merged batches. ``classify`` may be called from several threads at once.

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
        self.model = model
        self._engine = engine
        spec = model.manifest.input
        self._pad = spec.pad
        self._canvas = Canvas(spec.height, spec.width, CHANNELS)
        self._decoder = decoder or decoders.make(
            model.manifest.decoder, DecoderOptions.of(model.manifest, pipeline.min_score)
        )

    @property
    def max_rows(self) -> int:
        """Maximum number of rows merged into one batch. Merging more rows would only delay the first row."""
        return self._engine.batch_size

    @property
    def slot_count(self) -> int:
        """Maximum number of batches in flight, including one that is filled or decoded."""
        return self._engine.slot_count

    def open(self) -> None:
        """Load and warm up the engine, and try the decoder.

        The model is ready when this method returns. Raise ModelLoadFailed.
        """
        self._engine.load(self.model)
        self._engine.warm_up()
        self._require_readable()

    def classify(self, merged: MergedBatch) -> None:
        """Settle every task with its detections.

        A task that also fails in an engine call of its own settles with its error. Raise DeviceLost.
        """
        for job in merged.jobs:  # before the tasks settle, because a settled job may be written at once
            job.model = self.model.manifest.id
        self._settle(merged.tasks)

    def close(self) -> None:
        """Release the model."""
        self._engine.close()

    def _require_readable(self) -> None:
        """Raise ModelLoadFailed if the decoder cannot read the outputs.

        Otherwise every frame would become a dead letter.
        """
        height, width, _ = self._canvas
        outputs = self._engine.infer(np.full((1, *self._canvas), self._pad, np.uint8))
        reason = decoders.refusal(self._decoder, outputs, [FrameRegion.whole(width, height)])
        if reason:
            manifest = self.model.manifest
            raise ModelLoadFailed(f"model {manifest.id}, decoder {manifest.decoder}: {reason}. Add the model again")

    def _settle(self, tasks: Sequence[ItemTask]) -> None:
        try:
            detections = self._detect(tasks)
        except (MemoryError, DeviceLost):
            raise
        except Exception as error:  # an error of the backend or decoder may concern a single image
            if len(tasks) == 1:
                tasks[0].error = error if isinstance(error, EngineError) else InferenceFailed(repr(error))
                return
            half = len(tasks) // 2  # bisection: one bad image among n costs about 2·log2(n) more engine calls
            self._settle(tasks[:half])
            self._settle(tasks[half:])
            return
        for task, found in zip(tasks, detections, strict=True):
            task.detections = found

    def _detect(self, tasks: Sequence[ItemTask]) -> list[list[Detection]]:
        for task in tasks:
            if task.canvas != self._canvas:
                raise BadBatch(
                    f"batch is prepared for {task.canvas}: model {self.model.manifest.id} expects {self._canvas}"
                )
        rows: list[FrameRegion] = [row for task in tasks for row in task.regions]
        images = [image for task in tasks for image in task.images]
        per_row: list[Sequence[Detection]] = []
        # An item may declare thousands of one-pixel regions. Padding all of them at once would take gigabytes.
        for first in range(0, len(rows), self.max_rows):
            part = rows[first : first + self.max_rows]
            with self._engine.slot() as slot:
                inners = [row.region.inner for row in part]
                pad_into(slot.pixels[: len(part)], self._pad, inners, images[first : first + len(part)])
                per_row += self._decoder.decode(self._engine.run(slot, len(part)), part)
        found = iter(per_row)
        return [[detection for _ in task.images for detection in next(found)] for task in tasks]


class RepositorySource:
    """Served models from a repository. ``make_engine`` returns a new engine for a model."""

    def __init__(self, repository: Repository, make_engine: Callable[[Model], Engine]) -> None:
        self._repository = repository
        self._make_engine = make_engine

    def version(self, pipeline: PipelineConfig) -> str:
        """Return the version that a pipeline names, else the promoted version.

        Raise ModelUnknown or ManifestError.
        """
        name, version = self._repository.resolve(pipeline.model)
        return f"{name}@{version}"

    def make(self, pipeline: PipelineConfig) -> ServedModel:
        """Return the served model of a pipeline, not yet opened. Raise EngineError."""
        model = self._repository.open(pipeline.model).at_precision(pipeline.precision)
        return ServedModel(pipeline, model, self._make_engine(model))


def _require_match(pipeline: PipelineConfig, manifest: Manifest) -> None:
    spec = manifest.input
    for key in ("width", "height", "colour", "fit"):
        configured, wanted = getattr(pipeline, key), getattr(spec, key)
        if configured != wanted:
            raise ManifestError(
                f"pipeline {pipeline.name}: {key} = {configured!r}: model {manifest.id} expects {wanted!r}"
            )
