"""A pipeline's model, loaded as often as the node has threads, with its decoder."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence

from engines import decoders
from engines.decoders import DecoderOptions, FrameRegion, OutputDecoder
from engines.engine import CHANNELS, Engine
from engines.exceptions import BadBatch, EngineError, InferenceFailed, ManifestError
from engines.node.jobs import ItemTask
from engines.node.scheduler import MergedBatch
from engines.repository.manifest import Manifest, Model
from ingest.contract.records import Canvas, Detection, padded_rows
from ingest.site import PipelineConfig


class ServedModel:
    """Classifies merged batches of one pipeline. ``classify`` may run in as many threads as there are instances."""

    def __init__(
        self, pipeline: PipelineConfig, model: Model, make_engine: Callable[[], Engine], instances: int
    ) -> None:
        _require_match(pipeline, model.manifest)
        self.model = model
        self._engines: queue.Queue[Engine] = queue.Queue()
        self._all = [make_engine() for _ in range(instances)]
        spec = model.manifest.input
        self._pad = spec.pad
        self._canvas = Canvas(spec.height, spec.width, CHANNELS)
        self._decoder: OutputDecoder = decoders.make(
            model.manifest.decoder,
            DecoderOptions(model.manifest.labels, spec.width, spec.height, min_score=pipeline.min_score),
        )

    @property
    def max_rows(self) -> int:
        """The most rows that are worth merging: more would only make the first wait for the last."""
        return min(engine.batch_size for engine in self._all)

    def open(self) -> None:
        """Load and warm up every engine. Ready means that this returned. Raise ModelLoadFailed."""
        for engine in self._all:
            engine.load(self.model)
            engine.warm_up()
            self._engines.put(engine)

    def classify(self, merged: MergedBatch) -> None:
        """Settle every task: with what was found, or with the error of the tasks that fail also on their own."""
        for job in merged.jobs:  # first: a job may be written as soon as its last task is settled
            job.model = self.model.manifest.id
        engine = self._engines.get()
        try:
            self._settle(engine, merged.tasks)
        finally:
            self._engines.put(engine)

    def close(self) -> None:
        """Let the models go."""
        for engine in self._all:
            engine.close()

    def _settle(self, engine: Engine, tasks: Sequence[ItemTask]) -> None:
        try:
            found = self._found(engine, tasks)
        except MemoryError:
            raise
        except Exception as error:  # whatever a back end or a decoder says about a picture, the next may be well
            if len(tasks) == 1:
                tasks[0].failed = error if isinstance(error, EngineError) else InferenceFailed(repr(error))
                return
            for task in tasks:  # one bad picture must not take the others with it
                self._settle(engine, [task])
            return
        for task, detections in zip(tasks, found, strict=True):
            task.found = detections

    def _found(self, engine: Engine, tasks: Sequence[ItemTask]) -> list[list[Detection]]:
        for task in tasks:
            if task.canvas != self._canvas:
                raise BadBatch(f"{self.model.manifest.id}: prepared for {task.canvas}, expected {self._canvas}")
        rows: list[FrameRegion] = [row for task in tasks for row in task.rows]
        pictures = [picture for task in tasks for picture in task.pictures]
        images = padded_rows(self._canvas, self._pad, [row.region.inner for row in rows], pictures)
        per_row = iter(self._decoder.decode(engine.infer(images), rows))
        return [[detection for _ in task.pictures for detection in next(per_row)] for task in tasks]


def _require_match(pipeline: PipelineConfig, manifest: Manifest) -> None:
    spec = manifest.input
    for key in ("width", "height", "colour", "fit"):
        said, wanted = getattr(pipeline, key), getattr(spec, key)
        if said != wanted:
            raise ManifestError(f"pipeline {pipeline.name}: {key} = {said!r}: {manifest.id} expects {wanted!r}")
