"""Benchmark of optimised models: a trained ResNet-18 in int8, and pruned at three shares.

``python -m benchmarks.optimise --keep`` needs the extra ``train``: run it with ``.venv-train/bin/python``. The
benchmark trains a ResNet-18 with 11 million weights on regions of the simulated scenes, 64×64 px in eight classes,
and adds the Keras model to a repository. `sightline models optimise` then makes each version. Accuracy is measured on
scenes of another seed, and latency on each backend, with batches of the original and of the optimised model in turn.

The report fails if int8 in the form of ONNX Runtime is not twice as fast as fp32 with ONNX Runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import cv2
import typer

from benchmarks.report import ROOT, KeepIt, conclude, log_progress
from deploy.optimise.pictures import PreparedPictures, from_folder
from deploy.optimise.run import OptimiseOptions, optimise, speed_rows
from engines.optimise.int8 import Form
from engines.repository.adopt import AdoptOptions, adopt
from engines.repository.manifest import Model, sha256_of
from engines.repository.report import ConvertedFrom
from engines.repository.store import Repository
from training.regions import LABELS, SIZE_PX, LabelledRegions, rendered_regions

SHARES = (0.3, 0.5, 0.7)
"""Shares of channels to remove."""
MIN_SPEEDUP = 2.0
ORIGINAL = "resnet18"
INT8 = f"{ORIGINAL}-u8s8"
FOLDER = ROOT / ".sightline" / "optimise"
BACKENDS = ("onnxruntime", "openvino")
_LARGE_BATCH = 8
_TEST_SEED = 10_000
_STAGES = (64, 128, 256, 512)
"""Channels of the four stages of ResNet-18 (He et al., 2015)."""


def main(
    seeds: Annotated[int, typer.Option(help="Seeds of the training scenes.")] = 2,
    most: Annotated[int, typer.Option(help="Maximum number of training pictures per class.")] = 250,
    tested: Annotated[int, typer.Option(help="Maximum number of test pictures per class.")] = 80,
    epochs: Annotated[int, typer.Option(help="Passes over the training pictures.")] = 4,
    tuning: Annotated[int, typer.Option(help="Passes over the training pictures after pruning.")] = 2,
    seconds: Annotated[float, typer.Option(help="Time per version, backend and batch size.")] = 4.0,
    folder: Annotated[Path, typer.Option(help="Folder for the models. Those in it are not made again.")] = FOLDER,
    keep_it: KeepIt = False,
) -> None:
    """Train the network, make every version, measure all of them, and print the report."""
    repository = Repository(folder / "models")
    options = versions(tuning)
    if any(name not in repository.names() for name in (ORIGINAL, *options)):
        log_progress("rendering")
        train = LabelledRegions.concatenate(rendered_regions(range(seeds))).balanced(most, seed=0)
        test = LabelledRegions.concatenate(rendered_regions([_TEST_SEED])).balanced(tested, seed=0)
        if ORIGINAL not in repository.names():
            trained(train, test, epochs, folder, repository)
        original = repository.open(ORIGINAL)
        calibration = pictures(train, folder / "train", original)
        compared = pictures(test, folder / "test", original)
        for name, chosen in options.items():
            if name not in repository.names():
                log_progress(name)
                optimise(original, repository, calibration, compared, chosen, lambda title, total: lambda: None)
    original = repository.open(ORIGINAL)
    figures: dict[str, Any] = {"date_of_training": original.manifest.origin["adopted"]}
    for name in options:
        log_progress(f"measuring {name}")
        figures[name] = measured(original, repository.open(name), seconds)
    fastest = max(row["speedup"] for row in figures[INT8]["speed"] if row["backend"] == "onnxruntime")
    wrong = [] if fastest >= MIN_SPEEDUP else ["int8 is less than twice as fast as fp32"]
    conclude("optimise", figures, wrong, keep_it=keep_it)


def versions(tuning: int) -> dict[str, OptimiseOptions]:
    """Return the options of every version by its name. Every version is stored, whatever accuracy it loses."""
    common: dict[str, Any] = {"max_loss": 1.0, "seconds": 0.0, "backends": ("onnxruntime",)}
    forms: dict[str, Form] = {INT8: "u8s8", f"{ORIGINAL}-s8s8": "s8s8"}
    found = {
        name: OptimiseOptions(precision="int8", forms=(form,), name=name, **common) for name, form in forms.items()
    }
    for share in SHARES:
        name = f"{ORIGINAL}-channels-{share:.0%}".rstrip("%")
        found[name] = OptimiseOptions(prune=share, epochs=tuning, name=name, **common)
    return found


def measured(original: Model, version: Model, seconds: float) -> dict[str, Any]:
    """Return size, quality and speed of a version, compared with the original."""
    made = version.manifest.origin["optimised"]
    sizes = (1, _LARGE_BATCH)
    rows = [row for backend in BACKENDS for row in speed_rows(backend, original, version, sizes, seconds)]
    return {
        "original_bytes": original.path.stat().st_size,
        "optimised_bytes": version.path.stat().st_size,
        "accuracy": {key: made[key] for key in ("original", "optimised", "loss", "pictures")},
        **({"pruned": made["pruned"]} if "pruned" in made else {}),
        "speed": [row.model_dump() for row in rows],
    }


def trained(train: LabelledRegions, test: LabelledRegions, epochs: int, folder: Path, repository: Repository) -> None:
    """Train the network, and add it to the repository with its Keras file."""
    from training import network
    from training.convert.formats import keras_function, write_onnx

    log_progress(f"training on {len(train)} pictures")
    model = resnet18(len(LABELS))
    network.fit(model, train, test.balanced(20, seed=1), epochs=epochs, seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    file, exported = folder / "resnet18.keras", folder / "resnet18.onnx"
    model.save(str(file))
    function, spec = keras_function(model)
    converter = write_onnx(file, function, spec, exported)
    record = ConvertedFrom(file=file, sha256=sha256_of(file), converter=converter, largest_difference=0.0, kept=True)
    options = AdoptOptions(ORIGINAL, "softmax", LABELS, fit="stretch", converted=record)
    adopt(exported, repository, options)


def pictures(regions: LabelledRegions, folder: Path, model: Model) -> PreparedPictures:
    """Write pictures into folders by class, and return them as the command reads them."""
    for index, (image, label) in enumerate(zip(regions.images, regions.classes, strict=True)):
        target = folder / LABELS[int(label)]
        target.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target / f"{index}.png"), image)
    return from_folder(folder, model.manifest, "--calibrate")


def resnet18(classes: int) -> Any:
    """Return an untrained ResNet-18 for uint8 BGR pictures. The network has 11 million weights."""
    import keras
    from keras import layers

    def conv(source: Any, channels: int, kernel: int, stride: int = 1) -> Any:
        made = layers.Conv2D(channels, kernel, strides=stride, padding="same", use_bias=False)(source)
        return layers.BatchNormalization(momentum=0.9)(made)

    inputs = keras.Input((SIZE_PX, SIZE_PX, 3), dtype="uint8", name="images")
    top = layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    top = layers.ReLU()(conv(top, _STAGES[0], 7, 2))
    top = layers.MaxPooling2D(3, 2, padding="same")(top)
    for channels in _STAGES:
        for stride in (2 if channels > _STAGES[0] else 1, 1):
            inner = conv(layers.ReLU()(conv(top, channels, 3, stride)), channels, 3)
            skip = conv(top, channels, 1, stride) if top.shape[-1] != channels else top
            top = layers.ReLU()(layers.Add()([inner, skip]))
    top = layers.GlobalAveragePooling2D()(top)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="probabilities")(top))


if __name__ == "__main__":
    typer.run(main)
