"""`sightline train shipped`: train the shipped model, and write the model with its measured accuracy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tomli_w
import typer

from deploy.cli.common import friendly
from deploy.cli.output import progress, stdout
from engines.repository.manifest import MANIFEST, sha256_of
from training.classify.measures import confusion_matrix, recall_per_class
from training.convert.guard import require_train_extra
from training.regions import LABELS, SCENES_PER_SEED, SIZE_PX, LabelledRegions, rendered_regions

MODELS = Path(__file__).resolve().parents[3] / "engines" / "models"
"""Model repository of the shipped models."""
FILE = "model.onnx"
_DOCS = Path(__file__).resolve().parents[3] / "docs" / "reference" / "model-regions.md"
_HELD_OUT = 10_000
"""Lowest random seed of the held-out scenes. Training uses only lower seeds."""


@friendly
def shipped(
    seeds: Annotated[
        int, typer.Option(min=1, help=f"Number of seeds to train on, each with {SCENES_PER_SEED} scenes.")
    ] = 10,
    epochs: Annotated[int, typer.Option(min=1)] = 14,
    most: Annotated[int, typer.Option(min=1, help="Maximum images per class.")] = 2500,
    version: Annotated[int, typer.Option(min=1, help="Model version to write.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the model repository.")] = MODELS,
    docs: Annotated[Path | None, typer.Option(help="Page to write with the confusion matrix.")] = _DOCS,
) -> None:
    """Train the shipped model on regions of rendered scenes, and measure it on regions of held-out scenes.

    Write the model, its manifest, and a page with the confusion matrix.
    """
    require_train_extra("train shipped")
    from training import network

    started_s = time.monotonic()
    train_set = _collect(range(seeds), "rendering training scenes").balanced(most, seed=0)
    held_out = _collect(range(_HELD_OUT, _HELD_OUT + max(1, seeds // 4)), "rendering held-out scenes")
    model = network.build((SIZE_PX, SIZE_PX), len(LABELS))
    network.fit(model, train_set, held_out.balanced(200, seed=1), epochs=epochs, seed=0)
    folder = out / "regions" / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    network.export(model, folder / FILE)
    found = network.predict(model, held_out.images).argmax(axis=1)
    matrix = confusion_matrix(held_out.classes, found, len(LABELS))
    measured: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "seconds": round(time.monotonic() - started_s),
        "pictures": len(train_set),
        "held_out_pictures": len(held_out),
        "weights": int(model.count_params()),
        "onnx_difference": network.largest_difference(model, folder / FILE, held_out.images[:256]),
        "accuracy": round(float(np.trace(matrix)) / len(held_out), 4),
        "accuracy_per_class": dict(zip(LABELS, recall_per_class(matrix), strict=True)),
        "confusion": matrix.tolist(),
    }
    write_manifest(
        folder,
        decoder="softmax",
        labels=list(LABELS),
        input={"name": "images", "width": SIZE_PX, "height": SIZE_PX, "colour": "bgr", "fit": "stretch"},
        training=measured,
    )
    if docs:
        docs.write_text(_page(measured))
    stdout.print(f"{folder}: accuracy {measured['accuracy']}, {(folder / FILE).stat().st_size} bytes")


def _collect(seeds: Sequence[int], title: str) -> LabelledRegions:
    from rich.progress import track

    scenes = track(rendered_regions(seeds), title, total=len(seeds) * SCENES_PER_SEED, console=progress)
    return LabelledRegions.concatenate(scenes)


def write_manifest(folder: Path, *, decoder: str, labels: list[str], **settings: Any) -> None:
    """Write the manifest of the shipped model in ``folder``, whose path ends with the model's name and version."""
    manifest = {
        "name": folder.parent.name,
        "version": int(folder.name),
        "file": FILE,
        "sha256": sha256_of(folder / FILE),
        "decoder": decoder,
        "labels": labels,
        "max_batch": 32,
        **settings,
    }
    (folder / MANIFEST).write_text(tomli_w.dumps(manifest))


def _page(measured: dict[str, Any]) -> str:
    rows = [
        "| " + " | ".join((label, *map(str, counts))) + " |"
        for label, counts in zip(LABELS, measured["confusion"], strict=True)
    ]
    return "\n".join(
        [
            "# The shipped model: `regions`",
            "",
            "A small classifier of moving regions, 64×64 BGR. `make train` trains it on rendered scenes and measures",
            "it on scenes of other seeds. It recognises objects of the simulated cameras only. For real footage, add",
            "a model of your own by `sightline models add`.",
            "",
            f"Measured {measured['date']} on {measured['held_out_pictures']} held-out regions: "
            f"accuracy {measured['accuracy']}. The network has {measured['weights']} weights. The probabilities of",
            f"the ONNX file differ from those of Keras by at most {measured['onnx_difference']:.1e}.",
            "Rows are the true classes, columns the found classes:",
            "",
            "| | " + " | ".join(LABELS) + " |",
            "|" + "---|" * (len(LABELS) + 1),
            *rows,
            "",
        ]
    )
