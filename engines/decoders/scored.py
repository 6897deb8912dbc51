"""Decoders of object detectors that have one output for boxes and one output for class scores.

UltraFace and YOLO-NAS give each box as two corners. SSD (Liu et al., 2016, https://arxiv.org/abs/1512.02325) gives
offsets from prior boxes; many exported models convert these offsets to corners.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from engines.decoders.base import DecoderOptions, FrameRegion, fits, require_finite
from engines.decoders.boxes import FAR, LARGEST_LOG, Floats, best_boxes, from_centres
from engines.decoders.checks import not_centres, not_corners, not_in_unit, not_scores, not_shares, not_sizes
from engines.decoders.classes import BACKGROUND
from engines.decoders.settings import BoxSettings, OrderSettings, Prior, PriorSettings, read_settings
from engines.engine import Outputs
from engines.exceptions import InferenceFailed, ManifestError
from ingest.contract.records import Detection


class CornersDecoder:
    """Decoder of two outputs: corners ``(N, boxes, 4)`` (left, top, right, bottom) and scores ``(N, boxes,
    classes)``."""

    def __init__(self, options: DecoderOptions) -> None:
        self._options = options
        self._settings = read_settings(BoxSettings, "corners", options.settings)

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the boxes of each image after non-maximum suppression, except boxes of the background class."""
        boxes, scores = boxes_and_scores(outputs, len(rows), len(self._options.labels))
        scores = without_background(scores, self._options.labels)
        corners = left_first(boxes, self._settings).clip(-FAR, FAR) * (
            input_size(self._options) if self._settings.unit == "share" else 1
        )
        return [best_boxes(*one, self._options) for one in zip(corners, scores, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return why the outputs are not class scores and box corners in the configured unit; "" if they are."""
        boxes, scores = boxes_and_scores(outputs, None, len(self._options.labels))
        return (
            not_scores(scores, "Use the decoder ssd with scores = softmax, or rtdetr")
            or not_corners(boxes, "Use the decoder rtdetr for centre and size, or ssd for offsets")
            or not_in_unit(boxes, self._settings.unit)
        )


class SsdDecoder:
    """Decoder of the outputs of an SSD: ``boxes (N, priors, 4)`` and ``scores (N, priors, classes)``.

    The setting ``form`` states how the model gives a box: ``corners`` (left, top, right, bottom), ``centres`` (centre
    and size), or ``offsets`` from prior boxes. Corners, centres and sizes are fractions of the input size. The model
    file does not hold the prior boxes, so the setting ``priors`` lists their sizes.
    """

    def __init__(self, options: DecoderOptions) -> None:
        self._options = options
        self._settings = read_settings(PriorSettings, "ssd", options.settings)
        self._priors = _prior_boxes(self._settings.priors, options.input_width, options.input_height)
        if self._settings.form == "offsets" and not self._settings.priors:
            raise ManifestError(
                "decoder ssd, setting priors = {}: expected the sizes of the prior boxes in px by stride, "
                "for example {8 = [10, 16, 24], 16 = [32, 48]}"
            )

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the boxes of each image after non-maximum suppression, except boxes of the background class."""
        boxes, scores = boxes_and_scores(outputs, len(rows), len(self._options.labels))
        if self._settings.form == "offsets" and boxes.shape[1] != len(self._priors):
            raise InferenceFailed(
                f"the model has {boxes.shape[1]} boxes: expected {len(self._priors)}, one for each prior box"
            )
        scores = without_background(activated(scores, self._settings.scores), self._options.labels)
        corners = self._corners(left_first(boxes, self._settings)) * input_size(self._options)
        return [best_boxes(*one, self._options) for one in zip(corners, scores, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return why the outputs are not class scores and boxes in the configured form; "" if they are."""
        boxes, scores = boxes_and_scores(outputs, None, len(self._options.labels))
        if self._settings.scores == "given":
            reason = not_scores(scores, "Set scores = softmax or scores = sigmoid")
            if reason:
                return reason
        if self._settings.form == "corners":
            cure = "Set form = centres, or form = offsets with priors"
            return not_corners(boxes, cure) or not_shares(boxes, "Use the decoder corners with unit = px")
        if self._settings.form == "centres":
            cure = "Set form = offsets with priors"
            return not_sizes(boxes, cure) or not_centres(boxes, "Set form = corners") or not_shares(boxes, cure)
        return not_centres(boxes, "The model has decoded them: set form = corners")

    def _corners(self, boxes: Floats) -> Floats:
        if self._settings.form == "corners":
            return boxes.clip(-FAR, FAR)
        if self._settings.form == "centres":
            return from_centres(boxes.clip(-FAR, FAR))
        centres, sizes = self._priors[:, :2], self._priors[:, 2:]
        moved = centres + boxes[..., :2].clip(-FAR, FAR) * self._settings.centre_variance * sizes
        scaled = np.exp((boxes[..., 2:] * self._settings.size_variance).clip(max=LARGEST_LOG)) * sizes
        return from_centres(np.concatenate([moved, scaled], axis=-1).astype(np.float32))


def boxes_and_scores(outputs: Outputs, rows: int | None, labels: int) -> tuple[Floats, Floats]:
    """Return the output of boxes ``(N, boxes, 4)`` and the output of scores ``(N, boxes, labels)``.

    A model with four labels has two outputs of the same shape, so the name of its output of boxes must contain "box"
    or "loc". Raise InferenceFailed if the model does not have exactly one output of boxes and one of scores.
    """
    if not outputs:
        raise InferenceFailed("the model has no output: expected an output of boxes and an output of scores")
    batch: int | str = "N" if rows is None else rows
    boxes = [name for name, values in outputs.items() if fits(values.shape, (batch, "boxes", 4))]
    scores = [name for name, values in outputs.items() if fits(values.shape, (batch, "boxes", labels))]
    if labels == 4:
        boxes = [name for name in boxes if "box" in name.lower() or "loc" in name.lower()]
        scores = [name for name in scores if name not in boxes]
    pairs = [(b, s) for b in boxes for s in scores if b != s and outputs[b].shape[1] == outputs[s].shape[1]]
    if len(pairs) != 1:
        shapes = ", ".join(f"{name} {values.shape}" for name, values in outputs.items())
        raise InferenceFailed(
            f"model outputs are {shapes}: expected boxes ({batch}, boxes, 4) and scores ({batch}, boxes, {labels}), "
            f"because the manifest has {labels} labels"
        )
    for name in pairs[0]:
        require_finite(name, outputs[name])
    return outputs[pairs[0][0]], outputs[pairs[0][1]]


def left_first(boxes: Floats, settings: OrderSettings) -> Floats:
    """Return boxes in which x comes before y, and width before height."""
    return boxes[..., [1, 0, 3, 2]] if settings.order == "top-left" else boxes


def without_background(scores: Floats, labels: tuple[str, ...]) -> Floats:
    """Return scores ``(…, labels)`` with -1 for the background class, which is below any ``min_score``."""
    return np.where(np.array(labels) == BACKGROUND, np.float32(-1), scores)


def activated(scores: Floats, kind: str) -> Floats:
    """Apply ``softmax`` or ``sigmoid`` to the last axis of logits; return scores of another ``kind`` unchanged."""
    if kind == "sigmoid":
        return np.asarray((1 + np.tanh(scores / 2)) / 2, np.float32)  # the logistic function, without overflow
    if kind == "softmax":
        exponents = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True), np.float32)
    return scores


def input_size(options: DecoderOptions) -> Floats:
    """Return (width, height, width, height) of the input in px, by which corners in fractions are multiplied."""
    return np.array([options.input_width, options.input_height] * 2, np.float32)


def _prior_boxes(priors: Mapping[int, Sequence[Prior]], width: int, height: int) -> Floats:
    """Return the centre and size of each prior box in fractions of the input size, ``(priors, 4)``, clipped to 0..1.

    As in an SSD's outputs, the prior boxes are sorted by stride, row, column, and index within the cell.
    """
    found = [np.zeros((0, 4))]
    for stride, sizes in sorted(priors.items()):
        lines, columns = -(-height // stride), -(-width // stride)
        pairs = [(size, size) if isinstance(size, int | float) else size for size in sizes]
        boxes = np.empty((lines, columns, len(pairs), 4))
        boxes[..., 0] = ((np.arange(columns) + 0.5) / columns)[None, :, None]
        boxes[..., 1] = ((np.arange(lines) + 0.5) / lines)[:, None, None]
        boxes[..., 2:] = np.array(pairs) / (width, height)
        found.append(boxes.reshape(-1, 4))
    return np.concatenate(found).clip(0.0, 1.0).astype(np.float32)
