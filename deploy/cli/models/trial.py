"""`sightline models test` and `models benchmark`: run a model of the repository."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.common import MODELS_VARIABLE, AsJson, friendly
from deploy.cli.output import print_rows, progress, stdout
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.exceptions import ConfigError

DEFAULT_MODELS = Path("models")
Models = Annotated[Path, typer.Option("--models", envvar=MODELS_VARIABLE, help="Folder of the model repository.")]
Name = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int, typer.Option(min=0, help="Version of the model. 0: the served one.")]
Seconds = Annotated[float, typer.Option(min=0.0, help="Time per backend and batch size, in seconds.")]
Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", help="Backend to measure. May be repeated. Default: all.", show_default=False),
]


def existing(models: Path) -> Repository:
    """Return the model repository in a folder. Raise ConfigError if the folder does not exist."""
    if not models.is_dir():
        raise ConfigError("models", "--models", str(models), "a model repository; `sightline models add` creates one")
    return Repository(models)


@friendly
def try_model(
    name: Name,
    pictures: Annotated[list[Path], typer.Argument(help="Pictures to run the model on: JPEG, PNG and others.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures with boxes.")] = Path(),
    min_score: Annotated[float, typer.Option(min=0.0, max=1.0, help="Lowest score of a detection.")] = 0.3,
    backend: Annotated[str, typer.Option(help="Inference backend.")] = "onnxruntime",
    version: Version = 0,
    models: Models = DEFAULT_MODELS,
    as_json: AsJson = False,
) -> None:
    """Run a model on pictures, and write each picture with the bounding boxes of its detections.

    Each picture is resized for the model like a frame in a pipeline with `regions = "full"`.
    """
    from deploy.local.modeltest import drawn_pictures

    model = existing(models).open(name, version or None)
    require_backend(backend)
    for row in drawn_pictures(model, pictures, out, min_score, backend):
        found = [
            {"label": d.label, "score": round(d.score, 4), "box": [round(v, 1) for v in d.box]}
            for d in row.detections
        ]
        if as_json:
            stdout.print_json(
                data={"picture": str(row.picture), "drawn": str(row.drawn), "detections": found}, indent=None
            )
            continue
        stdout.print(f"{row.picture} → {row.drawn}: {len(found)} detections", markup=False, soft_wrap=True)
        for entry in found:
            stdout.print(f"  {entry['label']} {entry['score']:.2f} {entry['box']}", markup=False, highlight=False)


@friendly
def benchmark(
    name: Name,
    seconds: Seconds = 2.0,
    backend: Backends = None,
    version: Version = 0,
    models: Models = DEFAULT_MODELS,
    as_json: AsJson = False,
) -> None:
    """Measure images per second and latency of a model by backend and batch size, one batch at a time."""
    from engines import backends

    model = existing(models).open(name, version or None)
    chosen = backend or [known for known in backends.BACKENDS if known != "fake"]
    for one in chosen:
        require_backend(one)
    rows = [row for one in chosen for row in _measured(model, one, seconds)]
    columns = ("backend", "batch", "images_per_s", "p50_ms", "p99_ms", "runs")
    shown = rows if as_json else [row for row in rows if not row["error"]]
    print_rows(shown, as_json, {key: key.replace("_per_", "/").replace("_", " ") for key in columns})
    for row in rows:
        if row["error"] and not as_json:
            stdout.print(f"{row['backend']}: {row['error']}", markup=False, soft_wrap=True)
    if all(row["error"] for row in rows):
        raise typer.Exit(1)


def _measured(model: Model, backend: str, seconds: float) -> list[dict[str, Any]]:
    from engines import backends
    from engines.engine import warm_up_sizes
    from engines.exceptions import EngineError, ModelLoadFailed
    from engines.speed import batch_speed

    rows: list[dict[str, Any]] = []
    try:
        if reason := backends.unavailable_reason(backend):
            raise ModelLoadFailed(reason)
        with closing(backends.make(backend)) as engine:
            engine.load(model)
            for size in warm_up_sizes(model.manifest.max_batch):
                progress.print(f"{backend}, batches of {size}")
                rows.append({"backend": backend, **batch_speed(engine, size, seconds)._asdict(), "error": ""})
    except EngineError as error:
        empty = dict.fromkeys(("batch", "images_per_s", "p50_ms", "p99_ms", "runs"), "")
        rows.append({"backend": backend, **empty, "error": str(error)})
    return rows


def require_backend(backend: str) -> None:
    """Raise ConfigError unless a backend has this name."""
    from engines import backends

    if backend not in backends.BACKENDS:
        raise ConfigError("models", "--backend", backend, f"one of {', '.join(sorted(backends.BACKENDS))}")
