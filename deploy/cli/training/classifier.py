"""`sightline train classifier`: train a classifier from folders of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deploy.cli.common import AsJson, friendly
from deploy.cli.models.options import Colour, Mean, Scale, read_name, size_of
from deploy.cli.models.trial import DEFAULT_MODELS, Models
from deploy.cli.output import printable, progress, stdout, step_progress
from ingest.exceptions import ConfigError
from training.classify.networks import CLASSIC, COMMAND, SMALL_CNN, NetworkOptions

if TYPE_CHECKING:
    from training.classify.run import ClassifierOptions

Data = Annotated[
    Path,
    typer.Argument(help="Folder with DATA/LABEL/*.jpg, or DATA/{train,validation,test}/LABEL/*.jpg.", metavar="DATA"),
]
Network = Annotated[
    str, typer.Option(help=f"{SMALL_CNN}, {CLASSIC} (two labels, grey), or a .keras file as a backbone.")
]
Size = Annotated[
    str, typer.Option(help="WIDTHxHEIGHT of the input. Default: that of the network.", show_default=False)
]
Fit = Annotated[
    Literal["stretch", "letterbox", "crop"], typer.Option(help="How pictures get the shape of the input.")
]
LearningRate = Annotated[
    float, typer.Option(min=0.0, help="Highest learning rate. 0: the usual rate of the network.")
]
Dropout = Annotated[
    float | None, typer.Option(min=0.0, max=0.9, help="Share of units to drop. Default: that of the network.")
]
Augment = Annotated[Literal["none", "light", "strong"], typer.Option(help="Random changes of the training pictures.")]
Flip = Annotated[bool, typer.Option(help="Mirror half of the pictures. Off for letters or left and right.")]
Strategy = Annotated[
    Literal["none", "mirrored", "multi-worker"],
    typer.Option(help="mirrored: all GPUs of this machine. multi-worker: the workers in TF_CONFIG."),
]
CpuDevices = Annotated[
    int, typer.Option(min=1, help="With mirrored and no GPU: number of devices to make of the CPU.")
]
RunFolder = Annotated[
    Path | None,
    typer.Option(help="Folder for checkpoints, logs and the report. Default: runs/NAME.", show_default=False),
]
CheckpointS = Annotated[
    float, typer.Option(min=0.0, help="Time between two checkpoints within an epoch, in seconds.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with a training that was killed. Starts if there is none.")
]
_NO_MEAN, _NO_SCALE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@friendly
def classifier(
    data: Data,
    out: Annotated[str, typer.Option(help="Name of the model.")],
    models: Models = DEFAULT_MODELS,
    network: Network = SMALL_CNN,
    size: Size = "",
    fit: Fit = "stretch",
    epochs: Annotated[int, typer.Option(min=1, help="Most passes over the pictures.")] = 30,
    batch: Annotated[int, typer.Option(min=1, help="Pictures in a batch, over all devices.")] = 32,
    learning_rate: LearningRate = 0.0,
    patience: Annotated[int, typer.Option(min=1, help="Stop after as many epochs without a lower loss.")] = 8,
    dropout: Dropout = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, order and augmentation.")] = 0,
    augment: Augment = "light",
    flip: Flip = True,
    freeze: Annotated[bool, typer.Option("--freeze", help="Train only the last layer of a backbone.")] = False,
    colour: Colour = None,
    mean: Mean = None,
    scale: Scale = None,
    strategy: Strategy = "none",
    cpu_devices: CpuDevices = 1,
    run: RunFolder = None,
    checkpoint_s: CheckpointS = 60.0,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train a classifier from folders of pictures, measure it on held-out pictures, and store it for pipelines.

    Without folders train, validation and test, 70 %, 15 % and 15 % of the pictures are chosen by a hash of the name.
    Pictures of one label whose file names are equal before `__` get into the same part. Damaged pictures and copies
    are skipped with their reason.

    A training that was killed goes on with --resume, and gives the same weights as without the kill.

    RUN/report.html has the confusion matrix, precision, recall, calibration and worst mistakes; RUN/logs is for
    TensorBoard. This command needs the extra `train`.
    """
    from training.classify.loop import LoopOptions
    from training.classify.run import ClassifierOptions

    name = read_name(out, COMMAND, "--out")
    loop = LoopOptions(epochs, batch, seed, augment, flip, patience, learning_rate, checkpoint_s)
    normalisation = (mean or _NO_MEAN, scale or _NO_SCALE) if mean or scale else None
    options = ClassifierOptions(
        name=name,
        folder=run or Path("runs") / name,
        network=NetworkOptions(network, size_of(size, COMMAND), freeze, colour, normalisation, dropout),
        loop=loop,
        fit=fit,
        strategy=strategy,
        cpu_devices=cpu_devices,
        resume=resume,
    )
    if cpu_devices > 1 and strategy != "mirrored":
        raise ConfigError(COMMAND, "--cpu-devices", cpu_devices, "1, or --strategy mirrored")
    _train(data, options, models, as_json)


def _train(data: Path, options: ClassifierOptions, models: Path, as_json: bool) -> None:
    """Train a classifier with a progress bar, store the model, and print its accuracy."""
    from engines.repository.store import Repository
    from training.classify.run import REPORT, train_classifier

    repository = Repository(models)
    with step_progress() as begin:
        found = train_classifier(data, repository, options, begin, _say)
    if found is None:
        _say("finished; the first worker of TF_CONFIG stores the model")
        return
    _print(found, repository, options.folder / REPORT, models, as_json)


def _say(text: str) -> None:
    progress.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _print(found: Any, repository: Any, report: Path, models: Path, as_json: bool) -> None:
    from training.classify.page import row

    (one,) = found.models
    manifest = one.model.manifest
    served = repository.promoted(manifest.name)
    if as_json:
        stdout.print_json(data=row(one) | {"served": served, "report": str(report), "training": manifest.training})
        return
    measures = row(one)
    lines = [
        f"{manifest.id} stored in {models}, {measures['size_bytes']} bytes.",
        f"Accuracy {measures['accuracy']} on {measures['pictures']} held-out pictures, 95 % interval "
        f"{measures['accuracy_low']} to {measures['accuracy_high']}. Report: {report}",
    ]
    if served != manifest.version:
        lines.append(f"Version {served} is served. Next: sightline models promote {manifest.name} {manifest.version}")
    for line in lines:
        stdout.print(printable(line), markup=False, highlight=False, soft_wrap=True)
