"""Run a pipeline's model, and classify crops of the detected objects with the pipeline's second-stage models.

Crops are cut from the frame at full resolution. A second-stage model classifies the crops of all frames of a batch
together: it gives each object labels or an embedding. If a second-stage model is missing or fails, the detection is
still reported, with the reason for its missing label.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engines.decoders import FrameRegion
from engines.metrics import NodeMetrics
from engines.node.batchtime import BatchTime
from engines.node.jobs import ItemTask
from engines.node.scheduler import MergedBatch
from engines.node.serving import Refine, SecondModel, ServedModel, unchanged
from engines.repository.canary import Canary
from engines.repository.manifest import InputSpec, Model
from ingest.contract.crop import CropWindow, crop_window
from ingest.contract.records import Attribute, Detection, Embedding, Pixels
from ingest.exceptions import PictureError
from ingest.picture import draw
from ingest.site import SecondModelConfig

SMALL, UNSURE, LIMIT = "small", "unsure", "limit"
NO_FRAME, NO_MODEL, FAILED = "no_frame", "no_model", "failed"
"""Reasons why an object has no label of a second-stage model. The docstring of ``Attribute`` describes each reason.
"""
MAX_CROPS = 256
"""Once ``MAX_CROPS`` crops have been collected for a second-stage model, the crops are classified before the next
frame is decoded. At this limit, crops of 224×224 pixels take 38 MB."""
LABELLED, EMBEDDED = "labelled", "embedded"
"""Outcomes under which the metrics count objects that a second-stage model has labelled, or has given an
embedding."""

_Place = tuple[int, int]
"""Position of a detected object: index of its batch item in the merged batch, and index of the detection in this
item."""


class Cascade:
    """A pipeline's open model and the pipeline's second-stage models. None stands for a second-stage model that is
    not loaded."""

    def __init__(
        self,
        pipeline: str,
        first: ServedModel,
        seconds: Sequence[tuple[SecondModelConfig, SecondModel | None]],
        metrics: NodeMetrics,
        canary: tuple[Canary, ServedModel] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._first = first
        self._canary = canary
        self._seconds = seconds
        self._metrics = metrics

    @property
    def model(self) -> Model:
        """The pipeline's own model."""
        return self._first.model

    @property
    def max_rows(self) -> int:
        """Maximum number of images merged into one batch."""
        return self._first.max_rows

    @property
    def batch_time(self) -> BatchTime:
        """Expected device time of a batch, including the time of the second-stage models."""
        return self._first.batch_time

    def classify(self, merged: MergedBatch) -> None:
        """Classify a merged batch, and set in every task the detections with their attributes, or the error.

        Add the time that each stage took to ``merged.took``. Raise DeviceLost.
        """
        refine = self._refine(merged) if self._seconds else unchanged
        chosen = self._tasks_of_canary(merged)
        if self._canary and chosen:
            for job in merged.jobs:  # before the tasks settle, because a settled job may be written at once
                job.model = self.model.manifest.id
            for task in chosen:
                task.model = self._canary[0].id
            self._canary[1].classify(MergedBatch(merged.pipeline, chosen, took=merged.took), refine)
            merged = replace(merged, tasks=[task for task in merged.tasks if not task.model])
        self._first.classify(merged, refine)

    def _tasks_of_canary(self, merged: MergedBatch) -> list[ItemTask]:
        """Return the batch's tasks of the cameras that the canary version serves."""
        if self._canary is None:
            return []
        return [task for task in merged.tasks if self._canary[0].serves(task.item.camera)]

    def _refine(self, merged: MergedBatch) -> Refine:
        """Return the function that adds the attributes and embeddings of the second-stage models to detections."""

        def refine(tasks: Sequence[ItemTask], found: list[list[Detection]]) -> list[list[Detection]]:
            started_s = time.perf_counter()
            described = self._with_attributes(tasks, found)
            merged.took.cascade += time.perf_counter() - started_s
            return described

        return refine

    def _with_attributes(self, tasks: Sequence[ItemTask], found: list[list[Detection]]) -> list[list[Detection]]:
        """Return the detections of each task with attributes and embeddings, each in the order of the second-stage
        models."""
        passes = [_SecondPass(config, model) for config, model in self._seconds]
        for index, (task, detections) in enumerate(zip(tasks, found, strict=True)):
            _collect(passes, index, task, detections)
            for each in passes:
                each.label(at_least=MAX_CROPS)
        for each in passes:
            each.label()
            outcomes = [one.missing or LABELLED for given in each.attributes.values() for one in given]
            outcomes += [EMBEDDED] * len(each.embeddings)
            for outcome, count in Counter(outcomes).items():
                self._metrics.attributes.labels(self._pipeline, each.config.name, outcome).inc(count)
        return [
            [_described(one, passes, (t, d)) for d, one in enumerate(detections)]
            for t, detections in enumerate(found)
        ]


@dataclass(slots=True)
class _SecondPass:
    """State of one second-stage model during a merged batch: crops to classify, and its attributes and embeddings
    so far."""

    config: SecondModelConfig
    model: SecondModel | None
    places: list[_Place] = field(default_factory=list)
    rows: list[FrameRegion] = field(default_factory=list)
    images: list[Pixels] = field(default_factory=list)
    attributes: dict[_Place, list[Attribute]] = field(default_factory=dict)
    embeddings: dict[_Place, Embedding] = field(default_factory=dict)

    @property
    def spec(self) -> InputSpec | None:
        """Input of the model; None if the model is not loaded."""
        return self.model.model.manifest.input if self.model else None

    def miss(self, place: _Place, reason: str) -> None:
        """Note the reason why the second-stage model gives no label to the object at ``place``."""
        model = self.model.model.manifest.id if self.model else ""
        self.attributes[place] = [Attribute(name=self.config.name, model=model, missing=reason)]

    def add(self, place: _Place, row: FrameRegion, image: Pixels) -> None:
        """Add the crop of an object."""
        self.places.append(place)
        self.rows.append(row)
        self.images.append(image)

    def label(self, at_least: int = 1) -> None:
        """Classify the collected crops if their number is ``at_least`` or more."""
        if self.model is None or len(self.places) < at_least:
            return
        model = self.model.model.manifest.id
        for place, labels in zip(self.places, self.model.label(self.rows, self.images), strict=True):
            if not labels:
                self.miss(place, FAILED if labels is None else UNSURE)
            elif embeddings := labels[0].embeddings:
                named = {"name": self.config.name, "model": model}
                self.embeddings[place] = embeddings[0].model_copy(update=named)
            else:
                self.attributes[place] = [
                    Attribute(name=self.config.name, label=one.label, score=one.score, model=model) for one in labels
                ]
        self.places, self.rows, self.images = [], [], []


def _collect(passes: Sequence[_SecondPass], index: int, task: ItemTask, detections: Sequence[Detection]) -> None:
    """Collect crops of one frame's objects for the second-stage models.

    If no crop is needed, do not decode the frame.
    """
    size = task.item.width, task.item.height
    plans = [planned(each.config, each.spec, size, detections) for each in passes]
    has_windows = any(isinstance(window, CropWindow) for plan in plans for window in plan.values())
    frame = _frame_of(task) if has_windows else None
    for each, plan in zip(passes, plans, strict=True):
        for number, window in plan.items():
            if isinstance(window, str):
                each.miss((index, number), window)
            elif frame is None or each.spec is None:
                each.miss((index, number), NO_FRAME)
            else:
                row = FrameRegion(window.region, *size)
                each.add((index, number), row, draw(frame, window, each.spec.colour))


def planned(
    config: SecondModelConfig, spec: InputSpec | None, size: tuple[int, int], detections: Sequence[Detection]
) -> dict[int, CropWindow | str]:
    """Return the crop window of each object that a second-stage model classifies, or the reason why there is none.
    Pure.

    The keys of the result are indices of ``detections``. ``spec`` is None if the second-stage model is not loaded.
    ``size`` is the frame's (width, height) in px. If more than ``max_objects`` objects are large enough, only the
    objects with the highest scores get a window.
    """
    found: dict[int, CropWindow | str] = {}
    wanted = [n for n, one in enumerate(detections) if not config.on or one.label in config.on]
    left = config.max_objects
    for number in sorted(wanted, key=lambda n: -detections[n].score):
        box = detections[number].box.clipped(*size)
        if spec is None:
            found[number] = NO_MODEL
        elif min(box.width, box.height) < config.min_pixels:
            found[number] = SMALL
        elif not left:
            found[number] = LIMIT
        else:
            left -= 1
            found[number] = crop_window(spec, box, box.widened(config.margin).clipped(*size), size)
    return found


def _frame_of(task: ItemTask) -> Pixels | None:
    """Return the pixels of a task's frame, ``(height, width, 3)`` uint8, BGR; None if there is no usable frame."""
    if task.image is not None:
        return task.image
    try:
        return task.decoded()
    except PictureError:
        return None


def _described(one: Detection, passes: Sequence[_SecondPass], place: _Place) -> Detection:
    """Return a detection together with the attributes and embeddings that the second-stage models gave to the
    detection."""
    given = tuple(attribute for each in passes for attribute in each.attributes.get(place, ()))
    vectors = tuple(each.embeddings[place] for each in passes if place in each.embeddings)
    return one.model_copy(update={"attributes": given, "embeddings": vectors}) if given or vectors else one
