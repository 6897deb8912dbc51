"""Export a trained network to ONNX, prove that the ONNX model gives the same scores, and store it with its measured
accuracy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.repository.adopt import KERAS_FILE, MODEL_FILE, AdoptOptions, adopt
from engines.repository.manifest import InputSpec, Model, sha256_of
from engines.repository.report import ConvertedFrom
from engines.repository.store import Repository
from training.classify.checkpoint import TrainingProgress
from training.classify.folders import Part
from training.classify.measures import Evaluation
from training.classify.networks import Network
from training.convert.formats import keras_function, write_onnx
from training.exceptions import TrainingFailed

TOLERANCE = 1e-4
"""Largest difference between a score of the ONNX model and the score of the Keras model. Sums of float32 numbers
depend on their order, which differs between the ONNX and the Keras model."""


def exported(network: Network, labels: tuple[str, ...], spec: InputSpec, name: str, folder: Path) -> Model:
    """Write the Keras file to ``folder``, convert the file to ONNX, and adopt the ONNX model into a temporary
    repository in ``folder``.

    The exported copy of the network belongs to no strategy of ``tf.distribute``. Raise AdoptFailed.
    """
    import keras

    plain = keras.models.clone_model(network.model)
    plain.set_weights(network.model.get_weights())
    file, converted = folder / KERAS_FILE, folder / "converted.onnx"
    plain.save(str(file))
    converter = write_onnx(file, *keras_function(plain), converted)
    options = AdoptOptions(
        name=name,
        decoder=network.decoder,
        labels=labels,
        colour=network.colour,
        fit=spec.fit,
        mean=network.mean,
        scale=network.scale,
        size=network.size,
        converted=ConvertedFrom(
            file=file, sha256=sha256_of(file), converter=converter, largest_difference=0.0, kept=True
        ),
    )
    return adopt(converted, Repository(folder / "models"), options)


def require_equal_scores(keras_scores: npt.NDArray[np.float32], onnx_scores: npt.NDArray[np.float32]) -> float:
    """Compare the scores of the ONNX and the Keras model for the same pictures, and return the largest difference.
    Raise TrainingFailed if the difference exceeds ``TOLERANCE``."""
    columns = onnx_scores[:, 1:] if keras_scores.shape[1] == 1 else onnx_scores
    difference = float(np.abs(keras_scores - columns).max())
    if not difference <= TOLERANCE:
        raise TrainingFailed(
            f"scores of the ONNX model differ from those of the Keras model by {difference:.2g}: expected at most "
            f"{TOLERANCE}. Export the Keras file yourself, and add it with `sightline models add`"
        )
    return difference


def stored(candidate: Model, repository: Repository, difference: float, training: dict[str, Any]) -> Model:
    """Store a measured model in the repository as the next version of its name."""
    manifest = candidate.manifest.model_dump(mode="json", exclude={"name", "version", "sha256"})
    manifest["origin"]["conversion_difference"] = difference
    files = {name: (candidate.folder / name).read_bytes() for name in (MODEL_FILE, KERAS_FILE)}
    return repository.write(candidate.manifest.name, {**manifest, "training": training}, files)


def weights_sha256(network: Network) -> str:
    """Return the SHA-256 of all weights of a network, in their order. Trainings with the same weights have the same
    hash."""
    digest = hashlib.sha256()
    for values in network.model.get_weights():
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def facts_of(
    settings: dict[str, Any],
    progress: TrainingProgress,
    measured: Evaluation,
    network: Network,
    counts: Mapping[Part, int],
) -> dict[str, Any]:
    """Return facts for the model's manifest: how the model was trained, and how good it is."""
    history = progress.history
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(progress.spent_s, 1),
        "weights": int(network.model.count_params()),
        "weights_sha256": weights_sha256(network),
        **{f"{part}_pictures": count for part, count in counts.items()},
        **{key: value for key, value in settings.items() if value is not None},
        "trained_epochs": len(history),
        "best_epoch": progress.best_epoch + 1,
        "accuracy": round(measured.accuracy.value, 4),
        "accuracy_interval": [round(measured.accuracy.low, 4), round(measured.accuracy.high, 4)],
        "calibration_error": round(measured.calibration_error, 4),
        "confusion": measured.confusion.tolist(),
        "recall": {one.label: round(one.recall.value, 4) for one in measured.classes},
        "precision": {one.label: round(one.precision.value, 4) for one in measured.classes},
        "history": {
            "loss": [round(record.loss, 6) for record in history],
            "validation_loss": [round(record.validation_loss, 6) for record in history],
            "accuracy": [round(record.accuracy, 4) for record in history],
            "validation_accuracy": [round(record.validation_accuracy, 4) for record in history],
        },
    }
