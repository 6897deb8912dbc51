"""The served model of a pipeline: one engine per thread, and the decoder of its outputs."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence

import numpy as np

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion, OutputDecoder
from engines.engine import CHANNELS, Engine
from engines.exceptions import BadBatch, EngineError, InferenceFailed, ManifestError, ModelLoadFailed
from engines.node.jobs import ItemTask
from engines.node.scheduler import MergedBatch
from engines.repository.manifest import Manifest, Model
from ingest.contract.records import Box, Canvas, Detection, Fit, Inner, Region, padded_rows
from ingest.site import PipelineConfig


class ServedModel:
    """A classifier of one pipeline's merged batches. ``classify`` may run in up to ``instances`` threads at once.

    ``decoder`` replaces the decoder that the model's manifest names.
    """

    def __init__(
        self,
        pipeline: PipelineConfig,
        model: Model,
        make_engine: Callable[[], Engine],
        instances: int,
        decoder: OutputDecoder | None = None,
    ) -> None:
        _require_match(pipeline, model.manifest)
        self.model = model
        self._engines = [make_engine() for _ in range(instances)]
        self._idle: queue.Queue[Engine] = queue.Queue()
        spec = model.manifest.input
        self._pad = spec.pad
        self._canvas = Canvas(spec.height, spec.width, CHANNELS)
        self._decoder = decoder or decoders.make(
            model.manifest.decoder,
            DecoderOptions(model.manifest.labels, spec.width, spec.height, min_score=pipeline.min_score),
        )

    @property
    def max_rows(self) -> int:
        """Maximum number of rows merged into one batch. Merging more rows would only make the first one wait."""
        return min(engine.batch_size for engine in self._engines)

    def open(self) -> None:
        """Load and warm up every engine, and try the decoder.

        The model is ready when this method returns. Raise ModelLoadFailed.
        """
        for engine in self._engines:
            engine.load(self.model)
            engine.warm_up()
            self._idle.put(engine)
        self._require_readable(self._engines[0])

    def classify(self, merged: MergedBatch) -> None:
        """Settle every task with its detections.

        Settle it with its error if it also fails in an engine call of its own.
        """
        for job in merged.jobs:  # before the tasks settle, because a settled job may be written at once
            job.model = self.model.manifest.id
        engine = self._idle.get()
        try:
            self._settle(engine, merged.tasks)
        finally:
            self._idle.put(engine)

    def close(self) -> None:
        """Release the models."""
        for engine in self._engines:
            engine.close()

    def _require_readable(self, engine: Engine) -> None:
        """Raise ModelLoadFailed if the decoder cannot read the outputs.

        Otherwise every frame would become a dead letter.
        """
        height, width, _ = self._canvas
        row = FrameRegion(
            Region(Box(0, 0, width, height), Fit(1.0, 1.0, 0.0, 0.0), Inner(0, 0, width, height)), width, height
        )
        outputs = engine.infer(np.full((1, *self._canvas), self._pad, np.uint8))
        reason = decoders.refusal(self._decoder, outputs, [row])
        if reason:
            manifest = self.model.manifest
            raise ModelLoadFailed(f"model {manifest.id}, decoder {manifest.decoder}: {reason}. Add the model again")

    def _settle(self, engine: Engine, tasks: Sequence[ItemTask]) -> None:
        try:
            detections = self._detect(engine, tasks)
        except MemoryError:
            raise
        except Exception as error:  # an error of the backend or decoder may concern a single image
            if len(tasks) == 1:
                tasks[0].error = error if isinstance(error, EngineError) else InferenceFailed(repr(error))
                return
            for task in tasks:  # one at a time, so that one bad image does not fail the others
                self._settle(engine, [task])
            return
        for task, found in zip(tasks, detections, strict=True):
            task.detections = found

    def _detect(self, engine: Engine, tasks: Sequence[ItemTask]) -> list[list[Detection]]:
        for task in tasks:
            if task.canvas != self._canvas:
                raise BadBatch(
                    f"batch is prepared for {task.canvas}: {self.model.manifest.id} expects {self._canvas}"
                )
        rows: list[FrameRegion] = [row for task in tasks for row in task.regions]
        images = [image for task in tasks for image in task.images]
        per_row: list[Sequence[Detection]] = []
        # An item may declare thousands of one-pixel regions. Padding all of them at once would take gigabytes.
        for first in range(0, len(rows), engine.batch_size):
            part = slice(first, first + engine.batch_size)
            inners = [row.region.inner for row in rows[part]]
            padded = padded_rows(self._canvas, self._pad, inners, images[part])
            per_row += self._decoder.decode(engine.infer(padded), rows[part])
        found = iter(per_row)
        return [[detection for _ in task.images for detection in next(found)] for task in tasks]


def _require_match(pipeline: PipelineConfig, manifest: Manifest) -> None:
    spec = manifest.input
    for key in ("width", "height", "colour", "fit"):
        configured, wanted = getattr(pipeline, key), getattr(spec, key)
        if configured != wanted:
            raise ManifestError(f"pipeline {pipeline.name}: {key} = {configured!r}: {manifest.id} expects {wanted!r}")
