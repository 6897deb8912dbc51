"""`sightline train example`: draw a data set to try the training with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import friendly
from deploy.cli.output import stdout, step_progress
from training.classify.drawn import LABELS


@friendly
def example(
    folder: Annotated[Path, typer.Argument(help="Folder to write cat/*.png and dog/*.png to.")],
    pictures: Annotated[int, typer.Option(min=1, help="Pictures of each label.")] = 400,
    size: Annotated[int, typer.Option(min=8, max=1024, help="Width and height in px.")] = 64,
    grey: Annotated[bool, typer.Option("--grey", help="Draw in grey.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed. The same seed gives the same pictures.")] = 0,
) -> None:
    """Draw pictures of cats and dogs into two folders, to try `train classifier` with."""
    import cv2

    from training.classify.drawn import animals

    for label in LABELS:
        (folder / label).mkdir(parents=True, exist_ok=True)
    with step_progress() as begin:
        advance = begin("drawing", pictures * len(LABELS))
        for one in animals(pictures, size, grey, seed):
            encoded = cv2.imencode(".png", one.image)[1].tobytes()
            (folder / one.label / f"{one.label}-{seed}-{one.number:05}.png").write_bytes(encoded)
            advance()
    stdout.print(f"{pictures} pictures each of {' and '.join(LABELS)} in {folder}", markup=False, soft_wrap=True)
