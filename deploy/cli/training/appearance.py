"""`sightline train appearance`: build the shipped model of colour appearance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer

from deploy.cli.common import friendly
from deploy.cli.output import stdout
from engines.decoders import UNNAMED
from engines.repository.manifest import EMBEDDING, MANIFEST, sha256_of

_MODELS = Path(__file__).resolve().parents[3] / "engines" / "models"
NAME, FILE = "appearance", "model.onnx"


@friendly
def appearance(
    version: Annotated[int, typer.Option(min=1, help="Model version to write.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the model repository.")] = _MODELS,
) -> None:
    """Build the shipped model of colour appearance, and write the model with its manifest.

    The model is computed from its formula, so each build gives the same file.
    """
    from training.appearance import HEIGHT_PX, WIDTH_PX, build  # imports onnx, which takes 0.3 s

    folder = out / NAME / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(build().SerializeToString(deterministic=True))
    manifest: dict[str, Any] = {
        "name": NAME,
        "version": version,
        "file": FILE,
        "sha256": sha256_of(folder / FILE),
        "decoder": EMBEDDING,
        "labels": [UNNAMED],
        "max_batch": 32,
        "input": {"name": "images", "width": WIDTH_PX, "height": HEIGHT_PX, "colour": "bgr", "fit": "stretch"},
    }
    (folder / MANIFEST).write_text(tomli_w.dumps(manifest))
    stdout.print(f"{folder}: {(folder / FILE).stat().st_size} bytes", soft_wrap=True)
