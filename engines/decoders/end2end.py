"""The decoder of models whose outputs need no further non-maximum suppression.

Examples are YOLOv10, and models that end with TensorRT's EfficientNMS.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from engines.decoders.base import DecoderOptions, FrameRegion, fits, require_finite
from engines.decoders.boxes import FAR, MAX_DETECTIONS, Floats, Indices, detections
from engines.decoders.checks import not_classes, not_corners, not_in_unit, not_scores
from engines.decoders.classes import BACKGROUND
from engines.decoders.propose import tensorflow_outputs
from engines.decoders.scored import input_size, left_first
from engines.decoders.settings import RowSettings, read_settings
from engines.engine import Outputs
from engines.exceptions import InferenceFailed
from ingest.contract.records import Detection

_FAINT = 0.01
"""Maximum score of a row that counts as padding. The box and class of a padding row may be any numbers."""


class _Found(NamedTuple):
    """Outputs of a model: boxes of the shape ``(N, K, 4)``, and scores and classes of the shape ``(N, K)``.

    Some models also return how many of the K rows are valid; all later rows get the score 0.
    """

    boxes: Floats
    scores: Floats
    classes: Floats


class EndToEndDecoder:
    """Decoder of an output of the shape ``(N, K, 6)``, whose rows are left, top, right, bottom, score, class.

    The decoder also reads separate outputs: boxes ``(N, K, 4)``, scores ``(N, K)``, classes ``(N, K)``, and
    optionally the number of valid rows, ``(N,)`` or ``(N, 1)``. The scores must come before the classes, unless the
    name of the output with the classes contains "class", "label" or "cls". Further outputs of TensorFlow's detectors
    are ignored.
    """

    def __init__(self, options: DecoderOptions) -> None:
        self._options = options
        self._settings = read_settings(RowSettings, "end2end", options.settings)
        self._ignored = {index for index, label in enumerate(options.labels) if label == BACKGROUND}

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return a detection for each row with a score of at least ``min_score``.

        Rows of the background or of an unknown class are skipped.
        """
        found = self._read(outputs, len(rows))
        corners = found.boxes.clip(-FAR, FAR) * (input_size(self._options) if self._settings.unit == "share" else 1)
        return [self._decode_row(*one) for one in zip(corners, found.scores, found.classes, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return the reason why the boxes, scores or classes have wrong values, or "" if the values are right."""
        found = self._read(outputs, len(next(iter(outputs.values()))))
        real = found.scores > _FAINT
        boxes = found.boxes[real]
        return (
            not_scores(found.scores[real], "Use the decoder yolov5 or yolox for a grid")
            or not_classes(found.classes[real], len(self._options.labels), self._settings.first_class)
            or not_corners(boxes, "Export the model with corners")
            or not_in_unit(boxes, self._settings.unit)
        )

    def unproven(self, outputs: Outputs) -> dict[str, Any]:
        """Return the decoder's settings if all rows are padding, which cannot confirm the settings.

        Return an empty dictionary if any row has an object.
        """
        scores = self._read(outputs, len(next(iter(outputs.values())))).scores
        return {} if (scores > _FAINT).any() else self._settings.model_dump()

    def _decode_row(self, corners: Floats, scores: Floats, classes: Floats, row: FrameRegion) -> list[Detection]:
        whole: Indices = classes.clip(-1, len(self._options.labels)).astype(np.intp)
        known = (whole >= 0) & (whole < len(self._options.labels)) & (whole == classes)
        chosen = np.flatnonzero(known & (scores >= self._options.min_score) & ~np.isin(whole, list(self._ignored)))
        order = chosen[np.argsort(-scores[chosen], kind="stable")][:MAX_DETECTIONS]
        return detections(corners[order], scores[order], whole[order], row, self._options)

    def _read(self, outputs: Outputs, rows: int) -> _Found:
        if not outputs:
            raise InferenceFailed("the model has no output: expected an output with rows of boxes")
        if names := tensorflow_outputs(outputs):
            outputs = {name: outputs[name] for name in names}
        for name, values in outputs.items():
            require_finite(name, values)
        found = _table(outputs, rows) if len(outputs) == 1 else _parts(outputs, rows)
        if found is None:
            shapes = ", ".join(f"{name} {values.shape}" for name, values in outputs.items())
            raise InferenceFailed(
                f"model outputs are {shapes}: expected one output ({rows}, K, 6), or boxes ({rows}, K, 4), scores "
                f"({rows}, K) and classes ({rows}, K)"
            )
        return found._replace(
            boxes=left_first(found.boxes, self._settings), classes=found.classes - self._settings.first_class
        )


def _table(outputs: Outputs, rows: int) -> _Found | None:
    (values,) = outputs.values()
    if not fits(values.shape, (rows, "K", 6)):
        return None
    return _Found(values[..., :4], values[..., 4], values[..., 5])


def _parts(outputs: Outputs, rows: int) -> _Found | None:
    boxes = [values for values in outputs.values() if fits(values.shape, (rows, "K", 4))]
    if len(boxes) != 1:
        return None
    most = boxes[0].shape[1]
    counts = [values for values in outputs.values() if values.shape in ((rows,), (rows, 1))]
    named = {name: values for name, values in outputs.items() if values.shape == (rows, most)}
    if most == 1 and len(named) == 3:  # the count has the shape of the scores; it comes first
        counts = [named.pop(next(iter(named)))]
    elif most == 1:
        counts = []
    if len(named) != 2:
        return None
    scores, classes = named
    if _names_classes(scores):
        scores, classes = classes, scores
    kept = np.asarray(named[scores], np.float32)
    if counts:
        kept = np.where(np.arange(most) < counts[0].reshape(-1, 1), kept, np.float32(0))
    return _Found(boxes[0], kept, named[classes])


def _names_classes(name: str) -> bool:
    return any(word in name.lower() for word in ("class", "label", "cls"))
