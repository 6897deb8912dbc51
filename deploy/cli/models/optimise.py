"""`sightline models optimise`: make a smaller or faster version of a model, and compare it with the original."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, on_log
from deploy.cli.models.options import read_name
from deploy.cli.models.trial import (
    DEFAULT_MODELS,
    Backends,
    Models,
    Name,
    Seconds,
    Version,
    existing,
    require_backend,
)
from deploy.cli.output import print_rows, stdout, step_progress
from ingest.exceptions import ConfigError

if TYPE_CHECKING:
    from deploy.optimise.pictures import PreparedPictures
    from deploy.optimise.report import OptimisedVersion, OptimiseReport
    from engines.optimise.int8 import Form
    from engines.repository.manifest import Manifest


Precision = Annotated[
    Literal["fp32", "fp16", "int8"], typer.Option(help="fp16 for GPUs, int8 for CPUs and GPUs, fp32 to prune only.")
]
Forms = Annotated[
    list[str] | None,
    typer.Option(
        "--form",
        help="Form of int8: u8s8 for ONNX Runtime on CPUs, s8s8 for TensorRT. May be repeated. Default: both.",
        show_default=False,
    ),
]
PruneShare = Annotated[
    float, typer.Option(min=0.0, max=0.95, help="Share to remove. Needs a model added from a .keras file.")
]
PruneBy = Annotated[
    Literal["channels", "weights"],
    typer.Option(help="channels: a smaller, faster model. weights: zeros, which only compress well."),
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the pictures after pruning.")]
Calibrate = Annotated[
    Path | None, typer.Option(help="Folder of pictures, perhaps in folders by class.", show_default=False)
]
FromLog = Annotated[int, typer.Option(min=0, help="Use the newest frames of the running site, as many as this.")]
Test = Annotated[
    Path | None,
    typer.Option(
        help="Folder of other pictures for the comparison. Default: half of the pictures.", show_default=False
    ),
]
MaxLoss = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Largest loss of accuracy or agreement of a stored version.")
]
MinScore = Annotated[float, typer.Option(min=0.0, max=1.0, help="Lowest score of a detection that is compared.")]
NewName = Annotated[
    str, typer.Option("--name", help="Name for the result. Default: NAME-pruned, NAME-fp16 and so on.")
]


@friendly
def optimise(
    name: Name,
    precision: Precision = "fp32",
    form: Forms = None,
    prune: PruneShare = 0.0,
    prune_by: PruneBy = "channels",
    epochs: Epochs = 5,
    calibrate: Calibrate = None,
    from_log: FromLog = 0,
    test: Test = None,
    max_loss: MaxLoss = 0.02,
    min_score: MinScore = 0.3,
    new_name: NewName = "",
    seconds: Seconds = 2.0,
    backend: Backends = None,
    version: Version = 0,
    models: Models = DEFAULT_MODELS,
    as_json: AsJson = False,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Make a smaller or faster version of a model, and store it if it loses little against the original.

    With pictures in folders by class, the accuracy of both models is compared, else their agreement.

    A version that loses more than --max-loss is not stored, and the command exits with 1.
    """
    from deploy.optimise.run import OptimiseOptions
    from deploy.optimise.run import optimise as run

    for one in backend or []:
        require_backend(one)
    if new_name:
        read_name(new_name, "optimise", "--name")
    options = OptimiseOptions(
        precision=precision,
        forms=_forms(form) if precision == "int8" else (),
        prune=prune,
        prune_by=prune_by,
        epochs=epochs,
        max_loss=max_loss,
        min_score=min_score,
        name=new_name,
        seconds=seconds,
        backends=tuple(backend or ()),
    )
    repository = existing(models)
    model = repository.open(name, version or None)
    pictures = _pictures(model.manifest, calibrate, from_log, kafka, prefix)
    trained, tested = _split(pictures, model.manifest, test, precision == "int8" or prune > 0)
    with step_progress() as begin:
        report = run(model, repository, trained, tested, options, begin)
    _print(report, models, as_json)
    raise typer.Exit(1 if any(one.refused for one in report.versions) else 0)


def _forms(chosen: list[str] | None) -> tuple[Form, ...]:
    """Return the int8 forms that the user chose, or all forms if the user chose none. Raise ConfigError for a form
    that does not exist."""
    from engines.optimise.int8 import FORMS

    for one in chosen or []:
        if one not in FORMS:
            raise ConfigError("optimise", "--form", one, f"one of {', '.join(FORMS)}")
    return tuple(known for known in FORMS if known in (chosen or FORMS))


def _pictures(manifest: Manifest, calibrate: Path | None, from_log: int, kafka: str, prefix: str) -> PreparedPictures:
    """Return the pictures of a folder, or of the running site."""
    from deploy.optimise.pictures import from_folder
    from deploy.optimise.pictures import from_log as newest

    if calibrate and from_log:
        raise ConfigError("optimise", "--from-log", str(from_log), "no --from-log, because --calibrate is given")
    if calibrate:
        return from_folder(calibrate, manifest, "--calibrate")
    if from_log:
        return on_log("sightline-optimise", kafka, prefix, lambda log: newest(log, manifest, from_log))
    raise ConfigError("optimise", "--calibrate", "", "a folder of pictures, or --from-log N")


def _split(
    pictures: PreparedPictures, manifest: Manifest, test: Path | None, learns: bool
) -> tuple[PreparedPictures, PreparedPictures]:
    """Return the pictures for calibration or training, and the pictures on which both models are compared.

    If the optimisation learns from pictures, the two results have no picture in common.
    """
    from deploy.optimise.pictures import from_folder

    if test:
        return pictures, from_folder(test, manifest, "--test")
    if not learns:
        return pictures[:0], pictures
    if len(pictures) < 2:
        raise ConfigError(
            "optimise", "--calibrate", "1 picture", "two or more, because half of them are for the test"
        )
    return pictures.halves()


def _print(report: OptimiseReport, models: Path, as_json: bool) -> None:
    if as_json:
        stdout.print_json(data=report.model_dump(mode="json"))
        return
    if report.pruned:
        facts = report.pruned
        _line(
            f"Pruned by {facts.by}: {facts.weights_before} → {facts.weights_after} weights, {facts.zeros:.0%} of "
            f"them zero, fine-tuned for {facts.epochs} epochs."
        )
    for one in report.versions:
        _print_version(one, report, models)


def _print_version(one: OptimisedVersion, report: OptimiseReport, models: Path) -> None:
    quality = one.quality
    _line(f"{one.precision}{f', {one.form}' if one.form else ''}")
    _line(
        f"  {quality.measure} on {quality.pictures} pictures: {quality.original:.4f} → {quality.optimised:.4f}, "
        f"loss {quality.loss:.4f} of at most {report.max_loss}"
    )
    _line(
        f"  size: {one.original_bytes} → {one.optimised_bytes} bytes, compressed {one.original_packed_bytes} → "
        f"{one.optimised_packed_bytes}"
    )
    headings = {"backend": "backend", "batch": "batch", "original_ms": "original ms", "optimised_ms": "optimised ms"}
    print_rows([row.model_dump() for row in one.speed], False, {**headings, "speedup": "times as fast"})
    for note in one.notes:
        _line(f"  {note}")
    if one.refused:
        _line(f"Not stored: {one.refused}. Use more calibration pictures, another precision, or --max-loss.")
    else:
        _line(f"{one.model} stored in {models}. Serve it by its name in a pipeline, or promote it.")


def _line(text: str) -> None:
    stdout.print(text, markup=False, highlight=False, soft_wrap=True)
