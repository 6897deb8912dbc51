"""The report of classifiers as one HTML file without references to other files.

The file has a table of all models, and for each model its confusion matrix, precision and recall, calibration, worst
mistakes and training.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from training.classify.evaluate import EvaluatedModel, EvaluatedModels
from training.classify.measures import CalibrationBin

_MISTAKES = 24
_MIN_PICTURE_PX = 96
_DATASHEETS = ("datasheet.html", "datasheet.md", "datasheet.json", "README.md")
_CHART = 240
"""Width and height of a chart in px."""


def write_page(found: EvaluatedModels, data: Path, target: Path) -> None:
    """Write the report of models that were measured on the pictures in ``data``."""
    sheet = next((data / name for name in _DATASHEETS if (data / name).is_file()), None)
    pictures = found.pictures
    page = _template().render(
        title=", ".join(one.model.manifest.id for one in found.models),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        data=str(data.resolve()),
        part=found.part or "all",
        count=len(found.indices),
        sha256=pictures.sha256,
        datasheet=sheet.resolve().as_uri() if sheet else "",
        skipped=[(str(one.path), one.reason) for one in pictures.skipped],
        models=[_model(one, found) for one in found.models],
        chart=_CHART,
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")


def row(one: EvaluatedModel) -> dict[str, Any]:
    """Return the measures of a model for the table of all models, and for programs."""
    measures, speed = one.evaluation, one.speed
    return {
        "model": one.model.manifest.id,
        "made_by": one.made_by,
        "size_bytes": one.size_bytes,
        "backend": speed.backend if speed else "",
        "single_ms": speed.single.p50_ms if speed else None,
        "images_per_s": speed.batches.images_per_s if speed else None,
        "batch": speed.batches.batch if speed else None,
        "pictures": measures.accuracy.total,
        "accuracy": round(measures.accuracy.value, 4),
        "accuracy_low": round(measures.accuracy.low, 4),
        "accuracy_high": round(measures.accuracy.high, 4),
        "calibration_error": round(measures.calibration_error, 4),
        "mistakes": len(measures.mistakes),
    }


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


def _model(one: EvaluatedModel, found: EvaluatedModels) -> dict[str, Any]:
    measures = one.evaluation
    totals = np.maximum(measures.confusion.sum(axis=1, keepdims=True), 1)
    history: dict[str, list[float]] = one.model.manifest.training.get("history", {})
    return {
        "row": row(one),
        "labels": measures.labels,
        "confusion": measures.confusion.tolist(),
        "shares": (measures.confusion / totals).tolist(),
        "classes": measures.classes,
        "calibration": _bars(measures.calibration),
        "bins": [one for one in measures.calibration if one.pictures],
        "mistakes": [_mistake(i, one, found) for i in measures.mistakes[:_MISTAKES]],
        "curves": [
            _curves(name, history.get(name, []), history.get(f"validation_{name}", []))
            for name in ("loss", "accuracy")
            if history.get(name)
        ],
        "facts": {
            key: value
            for key, value in one.model.manifest.training.items()
            if isinstance(value, str | int | float) and key != "history"
        },
    }


def _mistake(index: int, one: EvaluatedModel, found: EvaluatedModels) -> dict[str, Any]:
    """Return the entry of the report about a picture with a wrong label. ``index`` is the picture's index among the
    measured pictures."""
    at, pictures = int(found.indices[index]), found.pictures
    scores = one.probabilities[index]
    best = int(scores.argmax())
    return {
        "picture": _data_url(pictures.images[at], found.models[0].model.manifest.input.colour),
        "file": str(pictures.files[at].path),
        "truth": pictures.files[at].label,
        "found": pictures.labels[best],
        "score": float(scores[best]),
    }


def _data_url(image: npt.NDArray[np.uint8], colour: str) -> str:
    shown = np.asarray(image)[..., ::-1] if colour == "rgb" else np.asarray(image)
    factor = max(1, -(-_MIN_PICTURE_PX // max(shown.shape[:2])))
    larger = cv2.resize(np.ascontiguousarray(shown), None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    return "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", larger)[1].tobytes()).decode()


def _bars(bins: Sequence[CalibrationBin]) -> list[dict[str, float]]:
    """Return the bar of each calibration bin that has pictures, in px of the chart: its left edge, height, and mean
    score."""
    width = _CHART / len(bins)
    return [
        {"x": i * width, "width": width, "height": one.accuracy * _CHART, "score": one.score * _CHART}
        for i, one in enumerate(bins)
        if one.pictures
    ]


def _curves(name: str, training: Sequence[float], validation: Sequence[float]) -> dict[str, Any]:
    """Return two curves over the training epochs as points of SVG lines, with the range of the vertical axis."""
    values = [*training, *validation]
    low, high = (0.0, 1.0) if name == "accuracy" else (0.0, max(values) or 1.0)

    def points(curve: Sequence[float]) -> str:
        step = _CHART / max(1, len(curve) - 1)
        return " ".join(
            f"{i * step:.1f},{_CHART - (value - low) / (high - low) * _CHART:.1f}" for i, value in enumerate(curve)
        )

    return {
        "name": name,
        "high": high,
        "epochs": len(training),
        "training": points(training),
        "validation": points(validation),
    }
