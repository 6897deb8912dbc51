"""`sightline train appearance`: build the shipped model of colour appearance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import friendly
from deploy.cli.output import stdout
from deploy.cli.training.shipped import FILE, MODELS, write_manifest
from engines.decoders import UNNAMED
from engines.repository.manifest import EMBEDDING

NAME = "appearance"


@friendly
def appearance(
    version: Annotated[int, typer.Option(min=1, help="Model version to write.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder of the model repository.")] = MODELS,
) -> None:
    """Build the shipped model of colour appearance, and write the model with its manifest.

    The model is computed from its formula, so each build gives the same file.
    """
    from training.appearance import HEIGHT_PX, WIDTH_PX, build  # imports onnx, which takes 0.3 s

    folder = out / NAME / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes(build().SerializeToString(deterministic=True))
    write_manifest(
        folder,
        decoder=EMBEDDING,
        labels=[UNNAMED],
        input={"name": "images", "width": WIDTH_PX, "height": HEIGHT_PX, "colour": "bgr", "fit": "stretch"},
    )
    stdout.print(f"{folder}: {(folder / FILE).stat().st_size} bytes", soft_wrap=True)
