"""Find the lens of a camera from pictures of a chessboard, with the calibration of OpenCV.

The method is that of Zhang, IEEE Transactions on Pattern Analysis and Machine Intelligence 22, 2000.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from ingest.contract.records.lens import LensModel
from ingest.exceptions import ConfigError
from ingest.site.file import config_error
from ingest.site.lens import LensConfig

MIN_PICTURES = 6
"""Minimum number of pictures with the whole chessboard. Fewer views do not determine the distortion."""
USUAL_PICTURES = 15
_FIND = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE
_WINDOW_PX = (2, 11)
"""Smallest and largest distance in pixels from a corner within which the picture decides where the corner is."""
_ENDS = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 200, 1e-9)
_FISHEYE = cv2.fisheye.CALIB_RECOMPUTE_EXTRINSIC | cv2.fisheye.CALIB_FIX_SKEW
WHERE = "config lens"

Corners = npt.NDArray[np.float32]
"""Inner corners of a chessboard in a picture, ``(corners, 2)`` in pixels."""


class Board(NamedTuple):
    """Number of inner corners of a chessboard: one fewer than squares in each direction."""

    columns: int
    rows: int


class Seen(NamedTuple):
    """The corners of the chessboard in one picture."""

    picture: str
    """Path relative to the folder of the pictures."""
    corners: Corners


@dataclass(frozen=True, slots=True)
class Calibration:
    """The lens that was found.

    ``error_px`` is the root mean square distance in pixels between the corners in the pictures and those that the
    lens predicts, and ``errors_px`` the same for each used picture. ``coverage`` is the share of the picture that the
    boards covered together. ``without_board`` lists the pictures in which no whole board was found. Names of pictures
    are relative to their folder.
    """

    lens: LensConfig
    error_px: float
    errors_px: dict[str, float]
    coverage: float
    without_board: list[str]


def calibrate(folder: Path, pictures: Sequence[str], board: Board, model: LensModel) -> Calibration:
    """Return the lens that took the pictures of a chessboard in ``folder``.

    Raise ConfigError if a file is no picture, if the sizes of the pictures differ, if too few pictures show the whole
    board, or if the found lens cannot be used.
    """
    size, seen = _corners_of(folder, pictures, board)
    if len(seen) < MIN_PICTURES:
        raise ConfigError(
            WHERE,
            "pictures",
            f"{len(seen)} of {len(pictures)} show {board.columns}×{board.rows} inner corners",
            f"at least {MIN_PICTURES}, better {USUAL_PICTURES}, with the whole board in different places and angles. "
            "Check --board: a board of 10×7 squares has 9×6 inner corners",
        )
    try:
        matrix, distortion, errors = (_fisheye if model == "fisheye" else _pinhole)(seen, board, size)
    except cv2.error as error:
        raise ConfigError(
            WHERE, "pictures", str(error.err), "boards that are tilted in different directions, sharp and flat"
        ) from None
    errors_px = {one.picture: error for one, error in zip(seen, errors, strict=True)}
    return Calibration(
        lens=_lens(model, size, matrix, distortion),
        error_px=math.sqrt(float(np.mean(np.square(errors)))),
        errors_px=errors_px,
        coverage=_coverage(seen, size),
        without_board=[picture for picture in pictures if picture not in errors_px],
    )


def _corners_of(folder: Path, pictures: Sequence[str], board: Board) -> tuple[tuple[int, int], list[Seen]]:
    """Return the size of the pictures (width, height), and the corners of those that show the whole board."""
    size, seen = (0, 0), []
    for name in pictures:
        file = folder / name
        grey = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
        if grey is None:
            raise ConfigError(WHERE, "picture", str(file), "a picture that can be decoded")
        size, before = (grey.shape[1], grey.shape[0]), size
        if before not in ((0, 0), size):
            sizes = f"{before[0]}×{before[1]} and {size[0]}×{size[1]} px"
            raise ConfigError(
                WHERE, "picture", str(file), f"pictures of one size, as the camera sends them, not {sizes}"
            )
        found, corners = cv2.findChessboardCorners(grey, board, flags=_FIND)
        if found:
            seen.append(Seen(name, _refined(grey, corners.reshape(-1, 2))))
    return size, seen


def _refined(grey: cv2.typing.MatLike, corners: cv2.typing.MatLike) -> Corners:
    """Return the corners of a chessboard, found to a twentieth of a pixel."""
    spacing = float(np.linalg.norm(np.diff(corners, axis=0), axis=1).min())
    side = min(max(round(spacing / 3), _WINDOW_PX[0]), _WINDOW_PX[1])
    refined = cv2.cornerSubPix(grey, corners[:, None].copy(), (side, side), (-1, -1), _ENDS)
    return np.asarray(refined, np.float32).reshape(-1, 2)


def _grid(board: Board) -> npt.NDArray[np.float32]:
    """Return the corners of a flat board, ``(1, corners, 3)``, in squares."""
    columns, rows = np.meshgrid(np.arange(board.columns), np.arange(board.rows))
    return np.stack([columns, rows, np.zeros_like(rows)], axis=-1).reshape(1, -1, 3).astype(np.float32)


_Found = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], list[float]]
"""Camera matrix, coefficients of the distortion, and error of each picture in pixels."""


def _pinhole(seen: Sequence[Seen], board: Board, size: tuple[int, int]) -> _Found:
    corners = [one.corners[:, None] for one in seen]
    found = cv2.calibrateCameraExtended(
        [_grid(board)] * len(seen), corners, size, np.eye(3), np.zeros(5), criteria=_ENDS
    )
    matrix, distortion, errors = (np.asarray(found[n], np.float64) for n in (1, 2, 7))
    return matrix, distortion.ravel()[:5], errors.ravel().tolist()


def _fisheye(seen: Sequence[Seen], board: Board, size: tuple[int, int]) -> _Found:
    grid, corners = _grid(board).astype(np.float64), [one.corners[None].astype(np.float64) for one in seen]
    _, matrix, distortion, turns, shifts = cv2.fisheye.calibrate(
        [grid] * len(seen), corners, size, np.eye(3), np.zeros((4, 1)), flags=_FISHEYE, criteria=_ENDS
    )
    errors = []
    for found, turn, shift in zip(corners, turns, shifts, strict=True):
        predicted = cv2.fisheye.projectPoints(grid, turn, shift, matrix, distortion)[0]
        errors.append(math.sqrt(float(np.mean(np.sum((predicted - found) ** 2, axis=-1)))))
    return np.asarray(matrix, np.float64), np.asarray(distortion, np.float64).ravel(), errors


def _lens(
    model: LensModel,
    size: tuple[int, int],
    matrix: npt.NDArray[np.float64],
    distortion: npt.NDArray[np.float64],
) -> LensConfig:
    values = {"fx": matrix[0, 0], "fy": matrix[1, 1], "cx": matrix[0, 2], "cy": matrix[1, 2]}
    try:
        return LensConfig(
            model=model,
            width=size[0],
            height=size[1],
            **{name: round(float(value), 2) for name, value in values.items()},
            distortion=tuple(round(float(k), 6) for k in distortion),
        )
    except ValidationError as error:
        raise config_error(WHERE, error, "lens") from None


def _coverage(seen: Sequence[Seen], size: tuple[int, int]) -> float:
    """Return the share of the picture inside the outline of all corners."""
    outline = cv2.convexHull(np.concatenate([one.corners for one in seen]))
    return float(cv2.contourArea(outline)) / (size[0] * size[1])
