"""`sightline models`: the model repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from deploy.cli.common import AsJson, friendly, stdout
from engines.repository.store import Repository
from ingest.exceptions import ConfigError

app = typer.Typer(help="Add, list, promote and roll back models.", no_args_is_help=True)

Models = Annotated[Path, typer.Option("--models", help="The repository's folder.")]
Name = Annotated[str, typer.Argument(help="The model's name.")]


def read_labels(file: Path | None) -> tuple[str, ...]:
    """Return a file's class names, one a line; those of COCO without a file. Raise ConfigError."""
    from engines.repository.adopt import coco_labels

    if file is None:
        return coco_labels()
    if not file.is_file():
        raise ConfigError("models", "--labels", str(file), "a text file with one class name a line")
    return tuple(line.strip() for line in file.read_text().splitlines() if line.strip())


@app.command()
@friendly
def add(
    file: Annotated[Path, typer.Argument(help="An ONNX model of (N, 3, height, width) floats.")],
    name: Annotated[str, typer.Option(help="What to call it.")],
    decoder: Annotated[str, typer.Option(help="How to read its outputs: softmax, yolox …")],
    models: Models,
    labels: Annotated[Path | None, typer.Option(help="Its class names, one a line; COCO's 80 by default.")] = None,
    rgb: Annotated[bool, typer.Option("--rgb", help="It wants RGB; BGR by default.")] = False,
    stretch: Annotated[bool, typer.Option("--stretch", help="Fit by stretching; letterboxed by default.")] = False,
    mean: Annotated[tuple[float, float, float], typer.Option(help="Subtracted from each channel.")] = (0.0, 0.0, 0.0),
    scale: Annotated[tuple[float, float, float], typer.Option(help="Then multiplied.")] = (1.0, 1.0, 1.0),
) -> None:
    """Take a model into the repository: uint8 pixels in, compared with the original, as the next version."""
    from engines.repository.adopt import AdoptOptions, adopt

    options = AdoptOptions(
        name=name,
        decoder=decoder,
        labels=read_labels(labels),
        colour="rgb" if rgb else "bgr",
        fit="stretch" if stretch else "letterbox",
        mean=mean,
        scale=scale,
    )
    model = adopt(file, Repository(models), options)
    stdout.print(f"{model.manifest.id} is in {model.folder}, for batches of up to {model.manifest.max_batch}")


def _there(models: Path) -> Repository:
    if not models.is_dir():
        raise ConfigError("models", "--models", str(models), "a model repository's folder; `models add` makes one")
    return Repository(models)


@app.command("list")
@friendly
def list_models(models: Models, as_json: AsJson = False) -> None:
    """List the models, their versions, and which one nodes serve."""
    repository = _there(models)
    rows = [
        {"name": name, "versions": repository.versions(name), "served": repository.promoted(name)}
        for name in repository.names()
    ]
    if as_json:
        stdout.print_json(json.dumps(rows))
        return
    table = Table("model", "versions", "served")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    stdout.print(table)


@app.command()
@friendly
def verify(models: Models) -> None:
    """Check every version's file against its manifest."""
    repository = _there(models)
    for name in repository.names():
        for version in repository.versions(name):
            stdout.print(f"{repository.open(name, version).manifest.id}: good")


@app.command()
@friendly
def promote(name: Name, version: Annotated[int, typer.Argument(min=1)], models: Models) -> None:
    """Make nodes serve a version from their next start on."""
    before = _there(models).promote(name, version)
    stdout.print(f"{name}: {before} → {version}")


@app.command()
@friendly
def rollback(name: Name, models: Models) -> None:
    """Go back to the version before the one that is served."""
    stdout.print(f"{name}: back to {_there(models).roll_back(name)}")
