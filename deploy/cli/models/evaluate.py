"""`sightline models evaluate`: measure classifiers on labelled pictures, and write one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.cli.common import AsJson, friendly
from deploy.cli.models.trial import DEFAULT_MODELS, Models, Seconds, existing, require_backend
from deploy.cli.output import print_rows, progress, stdout, step_progress

_COLUMNS = {
    "model": "model",
    "made_by": "made by",
    "size_bytes": "bytes",
    "accuracy": "accuracy",
    "single_ms": "ms",
    "images_per_s": "images/s",
}


@friendly
def evaluate(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Classifiers, as NAME or NAME@VERSION.")],
    data: Annotated[Path, typer.Option(help="Folder with DATA/LABEL/*.jpg, or with train, validation and test.")],
    part: Annotated[
        Literal["train", "validation", "test", "all"],
        typer.Option(help="Pictures to measure. test: those that `train classifier` holds out."),
    ] = "test",
    out: Annotated[Path, typer.Option(help="Report to write, one HTML file.")] = Path("report.html"),
    backend: Annotated[str, typer.Option(help="Inference backend.")] = "onnxruntime",
    seconds: Seconds = 4.0,
    models: Models = DEFAULT_MODELS,
    as_json: AsJson = False,
) -> None:
    """Measure classifiers on labelled pictures, and write one report.

    With several models, such as a model and its quantised and pruned versions, the report has one table of their
    sizes, speeds and accuracies. The models run alternately while their speed is measured.
    """
    from training.classify.evaluate import evaluate as measure
    from training.classify.page import row, write_page

    require_backend(backend)
    repository = existing(models)
    opened = [repository.open(name) for name in names]
    with step_progress() as begin:
        found = measure(opened, data, None if part == "all" else part, backend, seconds, begin)
    for path, reason in found.pictures.skipped:
        progress.print(f"skipped {path}: {reason}", markup=False, highlight=False, soft_wrap=True)
    write_page(found, data, out)
    rows = [row(one) for one in found.models]
    if as_json:
        print_rows(rows, True, {})
        return
    print_rows(rows, False, _COLUMNS)
    stdout.print(f"{rows[0]['pictures']} pictures. Report: {out}", markup=False, highlight=False, soft_wrap=True)
