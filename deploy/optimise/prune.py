"""Prune a model of the repository that has its Keras file, fine-tune it, and convert it to ONNX again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from deploy.optimise.pictures import PreparedPictures
from deploy.optimise.report import PruneFacts
from engines.exceptions import OptimiseFailed
from engines.repository.adopt import KERAS_FILE, AdoptOptions, adopt
from engines.repository.manifest import Model, sha256_of
from engines.repository.store import Repository
from engines.repository.wrap import NO_MEAN, NO_SCALE, Triple
from training.convert.guard import require_train_extra


class Pruned(NamedTuple):
    """A pruned and fine-tuned model, in a temporary folder, with its Keras file."""

    model: Model
    keras_file: Path
    facts: PruneFacts


def prune(
    model: Model,
    pictures: PreparedPictures,
    folder: Path,
    share: float,
    by: Literal["channels", "weights"],
    epochs: int,
    begin: Callable[[str, int], Callable[[], None]],
) -> Pruned:
    """Remove channels or weights, fine-tune on pictures, and convert the result. Write the files into ``folder``.

    Raise OptimiseFailed for a model without its Keras file, or AdoptFailed.
    """
    file = _keras_file(model)
    require_train_extra(f"model {model.manifest.id}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras

    from training.convert.formats import keras_function, write_onnx
    from training.prune.channels import without_channels
    from training.prune.finetune import Pixels, batches_of, fine_tune, weight_sparsity

    advance = begin("loading Keras", 1)
    original = keras.saving.load_model(str(file), compile=False, safe_mode=True)
    smaller = without_channels(original, share) if by == "channels" else keras.models.clone_model(original)
    if by == "weights":
        smaller.set_weights(original.get_weights())
    advance()
    origin = model.manifest.origin
    dtype = str(original.inputs[0].dtype)
    fine_tune(
        smaller,
        original,
        Pixels(pictures, _triple(origin.get("mean", NO_MEAN)), _triple(origin.get("scale", NO_SCALE)), dtype),
        _classes(model, pictures.labels),
        epochs=epochs,
        sparsity=share if by == "weights" else 0.0,
        on_batch=begin("fine-tuning", batches_of(len(pictures), epochs)),
    )
    target, exported = folder / KERAS_FILE, folder / "pruned.onnx"
    smaller.save(str(target))
    function, spec = keras_function(smaller)
    write_onnx(target, function, spec, exported)
    facts = PruneFacts(
        by=by,
        share=share,
        weights_before=original.count_params(),
        weights_after=smaller.count_params(),
        zeros=weight_sparsity(smaller),
        epochs=epochs,
    )
    return Pruned(adopt(exported, Repository(folder / "models"), _as_before(model)), target, facts)


def _keras_file(model: Model) -> Path:
    """Return the Keras file of a model. Raise OptimiseFailed if the model has no Keras file, or if the file has
    another SHA-256 than the manifest states."""
    file = model.folder / KERAS_FILE
    if not file.is_file():
        raise OptimiseFailed(
            f"model {model.manifest.id} has no Keras file: a pruned model must be trained, and an ONNX model cannot "
            "be trained. Add the model from its .keras file, or prune it before the export"
        )
    wanted = model.manifest.origin.get("keras_sha256")
    if wanted and sha256_of(file) != wanted:
        raise OptimiseFailed(f"{file} has the SHA-256 {sha256_of(file)}: expected {wanted}, as the manifest says")
    return file


def _classes(model: Model, labels: list[str]) -> Any:
    """Return the indices of the labels of the pictures, or None without labels."""
    known = list(model.manifest.labels)
    return np.array([known.index(label) for label in labels], np.int64) if labels else None


def _triple(values: Sequence[float]) -> Triple:
    first, second, third = values
    return float(first), float(second), float(third)


def _as_before(model: Model) -> AdoptOptions:
    """Return the options with which the original model was added to the repository."""
    manifest, origin = model.manifest, model.manifest.origin
    return AdoptOptions(
        name=manifest.name,
        decoder=manifest.decoder,
        labels=manifest.labels,
        colour=manifest.input.colour,
        fit=manifest.input.fit,
        mean=_triple(origin.get("mean", NO_MEAN)),
        scale=_triple(origin.get("scale", NO_SCALE)),
        output=str(origin.get("output", "")),
        decoding=manifest.decoding,
        size=(manifest.input.width, manifest.input.height),
    )
