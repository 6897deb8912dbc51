"""`sightline config lens`: the lens of a camera, from pictures of a chessboard."""

from __future__ import annotations

import json
import re
import sys
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.common import AsJson, friendly
from deploy.cli.output import stdout
from ingest.exceptions import ConfigError

if TYPE_CHECKING:
    from deploy.calibrate.chessboard import Board, Calibration

MAX_ERROR_PX = 1.0
"""Error of a calibration in pixels above which a warning is printed. Good calibrations have an error of 0.1 to 0.5
pixels."""
MIN_COVERAGE = 0.6
"""Share of the picture that the boards should cover together. Beyond the boards, the distortion is a guess."""


@friendly
def lens(
    folder: Annotated[Path, typer.Argument(help="Folder with pictures of the chessboard, as the camera sends them.")],
    board: Annotated[
        str, typer.Option("--board", help="Inner corners of the board: 9x6 for a board of 10 by 7 squares.")
    ] = "9x6",
    fisheye: Annotated[bool, typer.Option("--fisheye", help="Use the fisheye model, for 120° and more.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the table `lens` of a camera, from pictures of a chessboard, with the error of the calibration.

    Take 15 pictures or more, near all corners and edges, close and far, with the board tilted in many directions.
    """
    from deploy.calibrate.chessboard import calibrate
    from deploy.local.pictures import picture_names

    pictures = picture_names(folder, "config lens", "FOLDER")
    found = calibrate(folder, pictures, _board(board), "fisheye" if fisheye else "pinhole")
    if as_json:
        stdout.print_json(data=_report(found))
    else:
        sys.stdout.write(_table(found))
    for warning in _warnings(found):
        sys.stderr.write(f"warning: {folder}: {warning}\n")


def _board(text: str) -> Board:
    from deploy.calibrate.chessboard import Board

    sizes = re.fullmatch(r"(\d{1,2})[x×](\d{1,2})", text)
    if not sizes or min(columns := int(sizes[1]), rows := int(sizes[2])) < 3:
        raise ConfigError(
            "config lens", "--board", text, "the inner corners as COLUMNSxROWS, at least 3x3, such as 9x6"
        )
    return Board(columns, rows)


def _table(found: Calibration) -> str:
    used, (worst, worst_px) = len(found.errors_px), max(found.errors_px.items(), key=itemgetter(1))
    about = (
        f"# {used} of {used + len(found.without_board)} pictures show the whole board. The boards cover "
        f"{found.coverage:.0%} of the frame.\n"
        f"# reprojection error: {found.error_px:.2f} px, of the worst picture, {worst}: {worst_px:.2f} px\n"
    )
    values = found.lens.model_dump(mode="json", exclude_defaults=True)
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]  # numbers and texts as in TOML
    return f"{about}[cameras.lens]\n{''.join(lines)}"


def _report(found: Calibration) -> dict[str, object]:
    return {
        "lens": found.lens.model_dump(mode="json"),
        "error_px": round(found.error_px, 3),
        "errors_px": {name: round(error, 3) for name, error in found.errors_px.items()},
        "coverage": round(found.coverage, 3),
        "without_board": found.without_board,
    }


def _warnings(found: Calibration) -> list[str]:
    warnings = []
    if found.error_px > MAX_ERROR_PX:
        warnings.append(
            f"the reprojection error is {found.error_px:.2f} px: expected less than {MAX_ERROR_PX:g} px. Is the "
            "board flat, are the pictures sharp, and does a very wide lens need --fisheye?"
        )
    if found.coverage < MIN_COVERAGE:
        warnings.append(
            f"the boards cover {found.coverage:.0%} of the picture: expected {MIN_COVERAGE:.0%} or more. Add "
            "pictures with the board near the edges and corners"
        )
    return warnings
