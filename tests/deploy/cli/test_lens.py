"""Tests of `sightline config lens` with rendered pictures of a chessboard."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from deploy.cli.app import app
from ingest.contract.records import Pixels
from ingest.site import load
from ingest.site.lens import LensConfig
from tests.lenses import rays

WIDTH, HEIGHT = 640, 360
WIDE = LensConfig(
    width=WIDTH, height=HEIGHT, fx=420, fy=424, cx=327, cy=174, distortion=(-0.28, 0.09, 0.0005, -0.0003, -0.012)
)
FISHEYE = LensConfig(
    model="fisheye",
    width=WIDTH,
    height=HEIGHT,
    fx=290,
    fy=292,
    cx=324,
    cy=177,
    distortion=(-0.02, 0.005, -0.002, 0.0),
)
COLUMNS, ROWS = 9, 6
PLACES = [(x, y) for x in (0.25, 0.5, 0.75) for y in (0.3, 0.5, 0.7)] + [(0.5, 0.5)] * 3


def chessboard(lens: LensConfig, number: int) -> Pixels:
    """Return the picture of a board at one of ``PLACES``, tilted in a direction of its own."""
    rng, (x, y) = np.random.default_rng(number), PLACES[number]
    slopes = rays(lens, (WIDTH, HEIGHT))
    middle = slopes[round(HEIGHT * y), round(WIDTH * x)]
    direction = np.array([*middle, 1.0]) / math.hypot(*middle, 1.0)
    facing, _ = cv2.Rodrigues(np.cross([0.0, 0.0, 1.0], direction))  # the board faces the camera
    turn, _ = cv2.Rodrigues(rng.uniform(-0.45, 0.45, 3))
    axes, away = facing @ turn, rng.uniform(11.0, 15.0)  # in squares
    place = direction * away
    distance = (axes[:, 2] @ place) / (slopes @ axes[:2, 2] + axes[2, 2])
    points = np.stack([slopes[..., 0] * distance, slopes[..., 1] * distance, distance], axis=-1) - place
    column, row = (points @ axes[:, n] + (count + 1) / 2 for n, count in enumerate((COLUMNS, ROWS)))
    sharp = lens.fx / away / math.pi  # an edge between two squares is a pixel wide
    waves = np.clip(np.sin(math.pi * column) * sharp, -1, 1) * np.clip(np.sin(math.pi * row) * sharp, -1, 1)
    inside = (column > -0.02) & (column < COLUMNS + 1.02) & (row > -0.02) & (row < ROWS + 1.02)
    level = np.where(inside, 125 - 95 * waves, 220) + rng.normal(0, 2, (HEIGHT, WIDTH))
    return np.clip(level, 0, 255).astype(np.uint8)


def write_boards(folder: Path, lens: LensConfig, count: int = len(PLACES)) -> None:
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:02}.png"), chessboard(lens, number))


def run(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["config", "lens", str(folder), *options])


def straightness(found: LensConfig, truth: LensConfig) -> float:
    """Return the largest distance in pixels of undistorted points from a straight picture of the scene, in the middle
    80 % of each side."""
    one, other = found.lens(WIDTH, HEIGHT), truth.lens(WIDTH, HEIGHT)
    points = [(WIDTH * x, HEIGHT * y) for x in np.linspace(0.1, 0.9, 9) for y in np.linspace(0.1, 0.9, 9)]
    straight, expected = (np.array([lens.undistorted(point) for point in points]) for lens in (one, other))
    turned = cv2.perspectiveTransform(straight[None], cv2.findHomography(straight, expected)[0])[0]
    return float(np.linalg.norm(turned - expected, axis=1).max())


@pytest.mark.parametrize(("lens", "options"), [(WIDE, ()), (FISHEYE, ("--fisheye",))], ids=["wide", "fisheye"])
def test_the_lens_of_rendered_chessboards_is_found(
    lens: LensConfig, options: tuple[str, ...], tmp_path: Path
) -> None:
    write_boards(tmp_path, lens)
    result = run(tmp_path, *options)
    assert result.exit_code == 0, result.output
    site = tmp_path / "site.toml"
    site.write_text(f'[[cameras]]\nname = "gate"\nsource = "device:0"\n{result.stdout}')
    found = load(site).cameras[0].lens
    assert found is not None
    assert straightness(found, lens) < 0.1
    assert (found.model, found.fx, found.cx) == (
        lens.model,
        pytest.approx(lens.fx, rel=0.002),
        pytest.approx(lens.cx, abs=0.5),
    )
    (error,) = re.findall(r"# reprojection error: (0\.\d\d) px", result.stdout)
    assert float(error) < 0.1


def test_pictures_without_the_whole_board_are_listed_and_boards_only_in_the_middle_cause_a_warning(
    tmp_path: Path,
) -> None:
    (tmp_path / "more").mkdir()
    for number, place in enumerate((4, 4, 4, 4, 4, 9, 10, 11)):  # places in the middle
        folder = tmp_path / "more" if number % 2 else tmp_path
        cv2.imwrite(str(folder / f"{number // 2}.png"), chessboard(WIDE, place))
    for name in ("empty.png", "more/empty.png"):
        cv2.imwrite(str(tmp_path / name), np.full((HEIGHT, WIDTH), 128, np.uint8))
    result = run(tmp_path, "--json")
    report = json.loads(result.stdout)
    assert report["without_board"] == ["empty.png", "more/empty.png"]
    assert sorted(report["errors_px"]) == sorted(f"{folder}{n}.png" for folder in ("", "more/") for n in range(4))
    assert report["coverage"] < 0.6
    assert "expected 60% or more. Add pictures with the board near the edges" in result.stderr


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--board", "nine"), "--board = 'nine'"),
        (("--board", "2x6"), "the inner corners as COLUMNSxROWS, at least 3x3"),
        ((), "0 of 1 show 9×6 inner corners"),
    ],
)
def test_a_wrong_board_and_pictures_without_boards_are_refused(
    options: tuple[str, ...], expected: str, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH), 128, np.uint8))
    result = run(tmp_path, *options)
    assert (result.exit_code, expected in result.stderr) == (2, True), result.stderr


def test_unreadable_pictures_and_pictures_of_several_sizes_are_refused(tmp_path: Path) -> None:
    assert "missing': expected a readable folder (No such file or directory)" in run(tmp_path / "missing").stderr
    cv2.imwrite(str(tmp_path / "a.png"), np.full((HEIGHT, WIDTH), 128, np.uint8))
    cv2.imwrite(str(tmp_path / "b.png"), np.full((HEIGHT, 2 * WIDTH), 128, np.uint8))
    assert "pictures of one size, as the camera sends them, not 640×360 and 1280×360 px" in run(tmp_path).stderr
    (tmp_path / "b.png").write_bytes(b"no picture")
    assert "b.png': expected a picture that can be decoded" in run(tmp_path).stderr
