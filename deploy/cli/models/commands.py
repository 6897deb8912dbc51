"""`sightline models`: administration of the model repository."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.common import AsJson, friendly
from deploy.cli.models.canary import promote, rollback, watch
from deploy.cli.models.compare import compare
from deploy.cli.models.evaluate import evaluate
from deploy.cli.models.optimise import optimise
from deploy.cli.models.options import File, MaxSeconds, NewName, name_of, with_overrides
from deploy.cli.models.trial import DEFAULT_MODELS, Models, Name, benchmark, existing, try_model
from deploy.cli.output import print_rows, stdout
from ingest.exceptions import ConfigError

if TYPE_CHECKING:
    from engines.repository.report import Overrides

app = typer.Typer(
    help="Add, inspect, test, measure, evaluate, compare, promote and roll back models.", no_args_is_help=True
)
app.command("test")(try_model)
app.command()(benchmark)
app.command()(compare)
app.command()(evaluate)
app.command()(optimise)
app.command()(promote)
app.command()(rollback)
app.command()(watch)


@app.command()
@friendly
@with_overrides
def add(
    overrides: Overrides,
    file: File,
    name: NewName = "",
    models: Models = DEFAULT_MODELS,
    max_seconds: MaxSeconds = 120,
    as_json: AsJson = False,
) -> None:
    """Add a model to the repository as its next version.

    A Keras file or a TensorFlow SavedModel is converted to ONNX first, which needs the extra `train`.

    A child process with limits on CPU time and memory inspects the file. The first decoder that can read the model's
    outputs is chosen. Settings that the file does not show are assumed, and the report names these settings. Options
    override all proposed settings. The stored model takes uint8 pixels. The outputs of the stored model are compared
    with the outputs of the original, and nothing is stored if the outputs differ.
    """
    _add(file, name_of(name, file), overrides, models, max_seconds, as_json)


@app.command()
@friendly
@with_overrides
def check(
    overrides: Overrides,
    file: File,
    max_seconds: MaxSeconds = 120,
    as_json: AsJson = False,
) -> None:
    """Inspect a model file and print the settings that `models add` would store."""
    _add(file, "model", overrides, None, max_seconds, as_json)


@app.command()
@friendly
@with_overrides
def pull(
    overrides: Overrides,
    url: Annotated[str, typer.Argument(help="HTTPS address of an ONNX model.")],
    sha256: Annotated[str, typer.Option(help="SHA-256 of the file, in hexadecimal.")],
    name: NewName = "",
    models: Models = DEFAULT_MODELS,
    max_mb: Annotated[int, typer.Option(min=1, help="Limit of the file's size, in MB.")] = 500,
    max_seconds: MaxSeconds = 120,
    as_json: AsJson = False,
) -> None:
    """Download a model, check its SHA-256, and add the model as `models add` does."""
    from deploy.local.pull import pull as download

    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ConfigError("models", "--sha256", sha256, "64 hexadecimal digits, as `sha256sum FILE` prints")
    with tempfile.TemporaryDirectory() as folder:
        file = download(url, sha256, Path(folder), max_mb * 1_000_000)
        _add(file, name_of(name, file), overrides, models, max_seconds, as_json)


@app.command("list")
@friendly
def list_models(models: Models = DEFAULT_MODELS, as_json: AsJson = False) -> None:
    """List the models with their versions and the served version."""
    repository = existing(models)
    rows = [
        {"name": name, "versions": repository.versions(name), "served": repository.promoted(name)}
        for name in repository.names()
    ]
    print_rows(rows, as_json, {"name": "model", "versions": "versions", "served": "served"})


@app.command()
@friendly
def show(
    name: Name,
    version: Annotated[int, typer.Option(min=0, help="Version to show. 0: the served one.")] = 0,
    models: Models = DEFAULT_MODELS,
    as_json: AsJson = False,
) -> None:
    """Print the manifest of a model, its versions and canaries, and a pipeline for the site file."""
    from deploy.cli.models.report import print_manifest
    from engines.repository.canary import trail_of

    repository = existing(models)
    model, trail = repository.open(name, version or None), trail_of(repository, name)
    print_manifest(model, repository.versions(name), repository.promoted(name), trail, as_json)


@app.command()
@friendly
def verify(models: Models = DEFAULT_MODELS) -> None:
    """Check that the file of every model version matches the version's manifest."""
    repository = existing(models)
    for name in repository.names():
        for version in repository.versions(name):
            stdout.print(f"{repository.open(name, version).manifest.id}: good")


def _add(file: Path, name: str, overrides: Overrides, models: Path | None, max_seconds: int, as_json: bool) -> None:
    """Inspect a file, store it if ``models`` names a repository, and print the report."""
    from deploy.cli.models.report import print_report
    from engines.repository import guard
    from training.convert.guard import convert, is_convertible

    limits = guard.ChildLimits(max_seconds)
    if not is_convertible(file):
        print_report(guard.examine(file, name, overrides, models, limits), models, as_json)
        return
    with tempfile.TemporaryDirectory() as folder:
        onnx_file, converted = convert(file, Path(folder), overrides.size, max_seconds)
        report = guard.examine(onnx_file, name, overrides, models, limits, converted)
    print_report(report, models, as_json)
