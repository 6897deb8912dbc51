"""Train a classifier from folders of pictures, measure it, and store it in the model repository."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from engines.repository.manifest import InputSpec
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from training.classify import checkpoint
from training.classify.devices import Devices, Strategy, devices_of
from training.classify.evaluate import EvaluatedModels, evaluated_models
from training.classify.export import exported, facts_of, require_equal_scores, stored
from training.classify.folders import PARTS, LabelledFolder, Part, labelled_files
from training.classify.loop import LoopOptions, TrainingLoop
from training.classify.networks import COMMAND, Network, NetworkOptions, build
from training.classify.page import write_page
from training.classify.pictures import Begin, LabelledPictures, read_pictures, require_every_label
from training.classify.tensorboard import write_history
from training.convert.guard import require_train_extra
from training.exceptions import TrainingFailed

REPORT, LOGS = "report.html", "logs"
_BACKEND = "onnxruntime"
_SPEED_S = 1.0


@dataclass(frozen=True, slots=True)
class ClassifierOptions:
    """Settings of `sightline train classifier`. ``folder`` holds checkpoints, logs and the report."""

    name: str
    folder: Path
    network: NetworkOptions
    loop: LoopOptions
    fit: Literal["stretch", "letterbox", "crop"] = "stretch"
    strategy: Strategy = "none"
    cpu_devices: int = 1
    resume: bool = False


def train_classifier(
    data: Path, repository: Repository, options: ClassifierOptions, begin: Begin, say: Callable[[str], None]
) -> EvaluatedModels | None:
    """Train, measure and store a classifier, and return its measures on the test pictures.

    Return None in a worker that is not the chief, because only the chief stores the model. Raise ConfigError,
    TrainingFailed or AdoptFailed.
    """
    require_train_extra(COMMAND)
    folder = labelled_files(data, COMMAND)
    devices = _started(options)
    network = _network(options, folder, devices)
    width, height = network.size
    spec = InputSpec(name="images", width=width, height=height, colour=network.colour, fit=options.fit)
    pictures = read_pictures(folder, spec, folder.labels, begin, COMMAND)
    for path, reason in pictures.skipped:
        say(f"skipped {path}: {reason}")
    require_every_label(pictures, data, COMMAND)
    settings = settings_of(options, pictures)
    loop = _trained(network, pictures, options, devices, settings, begin, say)
    if not devices.chief:
        return None
    return _measured_and_stored(loop, network, pictures, data, repository, options, settings, begin)


def _started(options: ClassifierOptions) -> Devices:
    """Start TensorFlow with deterministic operations."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    devices = devices_of(options.strategy, options.cpu_devices)
    tf.config.experimental.enable_op_determinism()
    return devices


def _network(options: ClassifierOptions, folder: LabelledFolder, devices: Devices) -> Network:
    import keras

    keras.utils.set_random_seed(options.loop.seed)
    with devices.strategy.scope():
        return build(options.network, len(folder.labels), devices.replicas > 1)


def settings_of(options: ClassifierOptions, pictures: LabelledPictures) -> dict[str, Any]:
    """Return the settings on which the trained weights depend, each under the name of its command line option."""
    loop = asdict(options.loop)
    loop.pop("checkpoint_s")
    size, normalisation = options.network.size, options.network.normalisation
    return {
        "data_sha256": pictures.sha256,
        "labels": list(pictures.labels),
        "network": options.network.network,
        "size": list(size) if size else None,
        "freeze": options.network.freeze,
        "colour": options.network.colour,
        "normalisation": [list(triple) for triple in normalisation] if normalisation else None,
        "dropout": options.network.dropout,
        "fit": options.fit,
        "strategy": options.strategy,
        "cpu_devices": options.cpu_devices,
        **loop,
    }


def _trained(
    network: Network,
    pictures: LabelledPictures,
    options: ClassifierOptions,
    devices: Devices,
    settings: dict[str, Any],
    begin: Begin,
    say: Callable[[str], None],
) -> TrainingLoop:
    """Train the network, from the checkpoint if the user resumes a training."""
    import tensorflow as tf

    options.folder.mkdir(parents=True, exist_ok=True)
    found = checkpoint.load(options.folder)
    if found and not options.resume:
        raise ConfigError(
            COMMAND,
            "--run",
            str(options.folder),
            f"a folder without an unfinished training, or --resume to go on at epoch {found.progress.epoch + 1}",
        )

    def on_epoch(history: list[checkpoint.EpochRecord]) -> None:
        one = history[-1]
        say(
            f"epoch {len(history)}/{options.loop.epochs}: loss {one.loss:.4f}, accuracy {one.accuracy:.4f}, "
            f"validation loss {one.validation_loss:.4f}, accuracy {one.validation_accuracy:.4f}"
        )
        if devices.chief:
            write_history(options.folder / LOGS, history)

    advances: list[Callable[[], None]] = []
    loop = TrainingLoop(
        network, pictures, options.loop, devices, options.folder, settings, on_epoch, lambda: advances[0]()
    )
    if found:
        checkpoint.require_same_settings(options.folder, found.settings, settings)
        loop.restore(found)
        say(f"resumed at epoch {found.progress.epoch + 1}, batch {found.progress.step + 1}")
    done = loop.progress.epoch * loop.steps + loop.progress.step
    advances.append(begin("training", loop.steps * options.loop.epochs - done))
    try:
        loop.run()
    except tf.errors.OpError as error:
        if devices.replicas == 1:
            raise
        raise TrainingFailed(
            f"another worker cannot be reached ({type(error).__name__}): expected all workers of "
            "TF_CONFIG. Start all of them again with --resume"
        ) from None
    return loop


def _measured_and_stored(
    loop: TrainingLoop,
    network: Network,
    pictures: LabelledPictures,
    data: Path,
    repository: Repository,
    options: ClassifierOptions,
    settings: dict[str, Any],
    begin: Begin,
) -> EvaluatedModels:
    width, height = network.size
    spec = InputSpec(name="images", width=width, height=height, colour=network.colour, fit=options.fit)
    with tempfile.TemporaryDirectory() as temporary:
        advance = begin("exporting", 1)
        candidate = exported(network, pictures.labels, spec, options.name, Path(temporary))
        advance()
        indices = pictures.indices("test")
        found = evaluated_models([candidate], [pictures], indices, "test", _BACKEND, _SPEED_S, begin)
        (measured,) = found.models
        difference = require_equal_scores(loop.predict(indices), measured.probabilities)
        counts: dict[Part, int] = {part: len(pictures.indices(part)) for part in PARTS}
        facts = facts_of(settings, loop.progress, measured.evaluation, network, counts)
        model = stored(candidate, repository, difference, facts)
    result = found.of(model)
    write_page(result, data, options.folder / REPORT)
    (options.folder / checkpoint.CHECKPOINT).unlink(missing_ok=True)
    return result
