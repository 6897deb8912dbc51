"""`sightline models`: administration of the model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import AsJson, friendly, print_rows, stdout
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.runtime.text import read_text

app = typer.Typer(help="Add, list, verify, promote and roll back models.", no_args_is_help=True)

Models = Annotated[Path, typer.Option("--models", help="Folder of the model repository.")]
Name = Annotated[str, typer.Argument(help="Name of the model.")]


def read_labels(file: Path | None) -> tuple[str, ...]:
    """Return the class names in a file, one per line. Without a file, return the class names of COCO.

    Raise ConfigError.
    """
    from engines.repository.adopt import COCO_LABELS

    if file is None:
        return COCO_LABELS
    if not file.is_file():
        raise ConfigError("models", "--labels", str(file), "a text file with one class name per line")
    labels = tuple(line.strip() for line in read_text(file).splitlines() if line.strip())
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice or not labels:
        raise ConfigError("models", str(file), ", ".join(twice) or "empty", "one class name per line, each once")
    return labels


@app.command()
@friendly
def add(
    file: Annotated[Path, typer.Argument(help="ONNX model with an input of (N, 3, height, width) floats.")],
    name: Annotated[str, typer.Option(help="Name for the model.")],
    decoder: Annotated[str, typer.Option(help="Decoder of the outputs: softmax, sigmoid, yolox, …")],
    models: Models,
    labels: Annotated[Path | None, typer.Option(help="Text file with a class name per line. Default: COCO.")] = None,
    rgb: Annotated[bool, typer.Option("--rgb", help="The model expects RGB. Default: BGR.")] = False,
    stretch: Annotated[bool, typer.Option("--stretch", help="Stretch frames to fit. Default: letterbox.")] = False,
    mean: Annotated[tuple[float, float, float], typer.Option(help="Subtracted from each channel.")] = (0, 0, 0),
    scale: Annotated[tuple[float, float, float], typer.Option(help="Multiplied after that.")] = (1, 1, 1),
    output: Annotated[str, typer.Option(help="Name of the output to keep, for a model with several.")] = "",
) -> None:
    """Add a model to the repository as its next version.

    The stored model takes uint8 pixels. The outputs of the stored model must match the original's, and fit the
    decoder and the number of labels. Otherwise nothing is stored.
    """
    from engines.repository.adopt import AdoptOptions, adopt

    options = AdoptOptions(
        name=name,
        decoder=decoder,
        labels=read_labels(labels),
        colour="rgb" if rgb else "bgr",
        fit="stretch" if stretch else "letterbox",
        mean=mean,
        scale=scale,
        output=output,
    )
    model = adopt(file, Repository(models), options)
    stdout.print(f"{model.manifest.id} added in {model.folder}, for batches of up to {model.manifest.max_batch}")


def _existing(models: Path) -> Repository:
    if not models.is_dir():
        raise ConfigError("models", "--models", str(models), "a model repository; `sightline models add` creates one")
    return Repository(models)


@app.command("list")
@friendly
def list_models(models: Models, as_json: AsJson = False) -> None:
    """List the models with their versions and the served version."""
    repository = _existing(models)
    rows = [
        {"name": name, "versions": repository.versions(name), "served": repository.promoted(name)}
        for name in repository.names()
    ]
    print_rows(rows, as_json, {"name": "model", "versions": "versions", "served": "served"})


@app.command()
@friendly
def verify(models: Models) -> None:
    """Compare the file of every version with its manifest."""
    repository = _existing(models)
    for name in repository.names():
        for version in repository.versions(name):
            stdout.print(f"{repository.open(name, version).manifest.id}: good")


@app.command()
@friendly
def promote(name: Name, version: Annotated[int, typer.Argument(min=1)], models: Models) -> None:
    """Serve this version: engine nodes load the version at their next start."""
    before = _existing(models).promote(name, version)
    stdout.print(f"{name}: {before} → {version}")


@app.command()
@friendly
def rollback(name: Name, models: Models) -> None:
    """Serve the version that was served before the current one."""
    stdout.print(f"{name}: back to {_existing(models).roll_back(name)}")
