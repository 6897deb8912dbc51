"""Benchmark of optimised models: a trained ResNet-18 in int8, and pruned at three shares.

``python -m benchmarks.optimise --keep`` needs the extra ``train``: run it with ``.venv-train/bin/python``. It trains
a ResNet-18 with 11 million weights on regions of the simulated scenes, 64×64 px in eight classes, and adds the Keras
model to a repository. `sightline models optimise` then makes each version. Accuracy is measured on scenes of another
seed, and latency on each backend, whose batches of the original and of the optimised model take turns.

The report fails if int8 in the form of ONNX Runtime is not twice as fast as fp32 with ONNX Runtime.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer

from benchmarks.report import KeepIt, conclude, log_progress
from deploy.optimise.pictures import PreparedPictures, from_folder
from deploy.optimise.run import OptimiseOptions, optimise
from engines.repository.adopt import AdoptOptions, adopt
from engines.repository.manifest import Model, sha256_of
from engines.repository.report import ConvertedFrom
from engines.repository.store import Repository
from training.regions import LABELS, SIZE_PX, LabelledRegions, rendered_regions

SHARES = (0.3, 0.5, 0.7)
"""Shares of channels to remove."""
MIN_SPEEDUP = 2.0
_TEST_SEED = 10_000
_STAGES = (64, 128, 256, 512)
"""Channels of the four stages of ResNet-18 (He et al., 2015)."""


def main(
    seeds: Annotated[int, typer.Option(help="Seeds of the training scenes.")] = 3,
    most: Annotated[int, typer.Option(help="Maximum number of training pictures per class.")] = 400,
    tested: Annotated[int, typer.Option(help="Maximum number of test pictures per class.")] = 100,
    epochs: Annotated[int, typer.Option(help="Passes over the training pictures.")] = 6,
    tuning: Annotated[int, typer.Option(help="Passes over the training pictures after pruning.")] = 3,
    seconds: Annotated[float, typer.Option(help="Time per backend and batch size.")] = 4.0,
    keep_it: KeepIt = False,
) -> None:
    """Train the network, make every version, and print the report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log_progress("rendering")
        train = LabelledRegions.concatenate(rendered_regions(range(seeds))).balanced(most, seed=0)
        test = LabelledRegions.concatenate(rendered_regions([_TEST_SEED])).balanced(tested, seed=0)
        repository = Repository(folder / "models")
        started_s = time.monotonic()
        model = trained(train, test, epochs, folder, repository)
        figures: dict[str, Any] = {
            "training_pictures": len(train),
            "training_s": round(time.monotonic() - started_s),
            "epochs": epochs,
        }
        calibration = pictures(train, folder / "train", model)
        compared = pictures(test, folder / "test", model)
        for title, options in {
            "int8": OptimiseOptions("int8", ("u8s8", "s8s8"), max_loss=1.0, seconds=seconds),
            **{f"channels -{share:.0%}": pruning(share, "fp32", tuning, seconds) for share in SHARES},
            "channels -50% and int8": pruning(0.5, "int8", tuning, seconds),
            "weights -50%": pruning(0.5, "fp32", tuning, seconds, by="weights"),
        }.items():
            log_progress(title)
            report = optimise(model, repository, calibration, compared, options, silent)
            figures[title] = report.model_dump(mode="json", exclude={"original", "max_loss"})
            for version in figures[title]["versions"]:
                for key in ("model", "refused", "notes"):
                    del version[key]
    wrong = [] if fastest(figures["int8"]) >= MIN_SPEEDUP else ["int8 is less than twice as fast as fp32"]
    conclude("optimise", figures, wrong, keep_it=keep_it)


def pruning(share: float, precision: Any, epochs: int, seconds: float, by: Any = "channels") -> OptimiseOptions:
    """Return the options of a pruning that stores every result, whatever it loses."""
    forms: Any = ("u8s8",) if precision == "int8" else ()
    return OptimiseOptions(precision, forms, share, by, epochs, max_loss=1.0, seconds=seconds)


def fastest(report: Any) -> float:
    """Return the largest ratio of speeds of the form for ONNX Runtime, on ONNX Runtime."""
    (version,) = (one for one in report["versions"] if one["form"] == "u8s8")
    return float(max(row["speedup"] for row in version["speed"] if row["backend"] == "onnxruntime"))


def silent(title: str, total: int) -> Callable[[], None]:
    """Report no progress."""
    return lambda: None


def trained(
    train: LabelledRegions, test: LabelledRegions, epochs: int, folder: Path, repository: Repository
) -> Model:
    """Train the network, and add it to the repository with its Keras file."""
    from training import network
    from training.convert.formats import keras_function, write_onnx

    log_progress(f"training on {len(train)} pictures")
    model = resnet18(len(LABELS))
    network.fit(model, train, test.balanced(20, seed=1), epochs=epochs, seed=0)
    file, exported = folder / "resnet18.keras", folder / "resnet18.onnx"
    model.save(str(file))
    function, spec = keras_function(model)
    converter = write_onnx(file, function, spec, exported)
    record = ConvertedFrom(file=file, sha256=sha256_of(file), converter=converter, largest_difference=0.0, kept=True)
    options = AdoptOptions("resnet18", "softmax", LABELS, fit="stretch", converted=record)
    return adopt(exported, repository, options)


def pictures(regions: LabelledRegions, folder: Path, model: Model) -> PreparedPictures:
    """Write pictures into folders by class, and return them as the command reads them."""
    for index, (image, label) in enumerate(zip(regions.images, regions.classes, strict=True)):
        target = folder / LABELS[int(label)]
        target.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(target / f"{index}.png"), image)
    return from_folder(folder, model.manifest, "--calibrate")


def resnet18(classes: int) -> Any:
    """Return an untrained ResNet-18 for uint8 BGR pictures. It has 11 million weights."""
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
