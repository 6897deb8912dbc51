"""Measure classifiers of the repository on labelled pictures: accuracy, size and speed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engines import backends, decoders
from engines.decoders import ClassifierDecoder, DecoderOptions
from engines.engine import Engine
from engines.repository.manifest import InputSpec, Model
from engines.speed import BatchSpeed, batch_speeds
from ingest.exceptions import ConfigError
from training.classify.folders import PARTS, Part, labelled_files
from training.classify.measures import Evaluation, evaluated
from training.classify.pictures import Begin, LabelledPictures, read_pictures

COMMAND = "models evaluate"
_LARGE_BATCH = 8


class ModelSpeed(NamedTuple):
    """Speed of a model on a backend, for single pictures and for batches."""

    backend: str
    single: BatchSpeed
    batches: BatchSpeed


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model of the repository, its measures, and its scores ``(N, labels)`` of the pictures."""

    model: Model
    evaluation: Evaluation
    probabilities: npt.NDArray[np.float32]
    speed: ModelSpeed | None

    @property
    def size_bytes(self) -> int:
        """Size of the model file in bytes."""
        return self.model.path.stat().st_size

    @property
    def made_by(self) -> str:
        """How the model was made from another model, such as ``int8 (u8s8), pruned``; empty for an original."""
        made: dict[str, Any] = self.model.manifest.origin.get("optimised", {})
        steps = ["pruned"] if "pruned" in made else []
        if made and made.get("precision") != "fp32":
            form = f" ({made['form']})" if "form" in made else ""
            steps.append(f"{made['precision']}{form}")
        return ", ".join(steps)


@dataclass(frozen=True, slots=True)
class EvaluatedModels:
    """Several models on the same pictures. ``indices`` are the indices of the pictures that were measured."""

    models: tuple[EvaluatedModel, ...]
    pictures: LabelledPictures
    indices: npt.NDArray[np.intp]
    part: Part | None

    def of(self, model: Model) -> EvaluatedModels:
        """Return the measures with ``model``, which has the same file, in place of the only measured model."""
        (only,) = self.models
        return replace(self, models=(replace(only, model=model),))


def evaluate(
    models: Sequence[Model], data: Path, part: Part | None, backend: str, seconds: float, begin: Begin
) -> EvaluatedModels:
    """Measure models on the labelled pictures of a folder. ``part`` is the part of the data to measure (training,
    validation or test), or None for all pictures.

    ``seconds`` is the time to measure the speed of all models; with 0 the speed is not measured. Raise ConfigError,
    ModelLoadFailed or InferenceFailed.
    """
    first = models[0].manifest
    for model in models[1:]:
        if model.manifest.labels != first.labels:
            raise ConfigError(
                COMMAND, "NAME", model.manifest.id, f"the labels of {first.id}: {', '.join(first.labels)}"
            )
    folder = labelled_files(data, COMMAND)
    prepared: dict[InputSpec, LabelledPictures] = {}
    each: list[LabelledPictures] = []
    for model in models:
        spec = model.manifest.input
        key = spec.model_copy(update={"name": ""})
        if key not in prepared:
            prepared[key] = read_pictures(folder, spec, first.labels, begin, COMMAND)
        each.append(prepared[key])
    indices = each[0].indices(part) if part else np.arange(len(each[0].files))
    if not len(indices):
        raise ConfigError(COMMAND, "--part", part or "all", f"a part with pictures: one of {', '.join(PARTS)}, all")
    return evaluated_models(models, each, indices, part, backend, seconds, begin)


def evaluated_models(
    models: Sequence[Model],
    pictures: Sequence[LabelledPictures],
    indices: npt.NDArray[np.intp],
    part: Part | None,
    backend: str,
    seconds: float,
    begin: Begin,
) -> EvaluatedModels:
    """Measure models on the pictures with the given indices.

    ``pictures`` has the same pictures once for each model, in the form of the model's input. Raise the errors of
    ``evaluate``.
    """
    found = []
    speeds = _speeds(models, backend, seconds, begin)
    for model, own, speed in zip(models, pictures, speeds, strict=True):
        scores = probabilities(model, own.images, indices, backend, begin)
        measures = evaluated(own.labels, own.classes[indices], scores)
        found.append(EvaluatedModel(model, measures, scores, speed))
    return EvaluatedModels(tuple(found), pictures[0], indices, part)


def probabilities(
    model: Model, images: npt.NDArray[np.uint8], indices: npt.NDArray[np.intp], backend: str, begin: Begin
) -> npt.NDArray[np.float32]:
    """Return the scores ``(N, labels)`` of a model for pictures. Raise ConfigError for a model that is no
    classifier."""
    manifest = model.manifest
    decoder = decoders.make(manifest.decoder, DecoderOptions.of(manifest, 0.0))
    if not isinstance(decoder, ClassifierDecoder):
        raise ConfigError(
            COMMAND, "NAME", manifest.id, f"a classifier, with decoder {', '.join(sorted(decoders.CLASSIFIERS))}"
        )
    advance = begin(f"running {manifest.id}", len(indices))
    found = []
    with closing(backends.make(backend)) as engine:
        engine.load(model)
        for chunk in _chunks(indices, min(_LARGE_BATCH, manifest.max_batch)):
            found.append(decoder.probabilities(engine.infer(np.ascontiguousarray(images[chunk])), len(chunk)))
            for _ in chunk:
                advance()
    return np.concatenate(found)


def _chunks(indices: npt.NDArray[np.intp], size: int) -> Iterator[npt.NDArray[np.intp]]:
    return (indices[i : i + size] for i in range(0, len(indices), size))


def _speeds(models: Sequence[Model], backend: str, seconds: float, begin: Begin) -> list[ModelSpeed | None]:
    """Return the speed of each model. The models run alternately, so that other work on the machine slows all of them
    alike."""
    if not seconds:
        return [None for _ in models]
    advance = begin("measuring the speed", 2)
    with ExitStack() as stack:
        engines: list[Engine] = []
        for model in models:
            engine = stack.enter_context(closing(backends.make(backend)))
            engine.load(model)
            engines.append(engine)
        largest = min(_LARGE_BATCH, *(model.manifest.max_batch for model in models))
        single = batch_speeds(engines, 1, seconds / 2)
        advance()
        several = batch_speeds(engines, largest, seconds / 2)
        advance()
    return [ModelSpeed(backend, one, many) for one, many in zip(single, several, strict=True)]
