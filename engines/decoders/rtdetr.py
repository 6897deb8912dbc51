"""The decoder of the detectors DETR and RT-DETR (Zhao et al., 2023, https://arxiv.org/abs/2304.08069)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engines.decoders.base import DecoderOptions, FrameRegion, only_output
from engines.decoders.boxes import FAR, MAX_DETECTIONS, Floats, detections, from_centres, likely
from engines.decoders.checks import are_scores, not_centres, not_shares, not_sizes
from engines.decoders.classes import BACKGROUND
from engines.decoders.scored import activated, boxes_and_scores, input_size, without_background
from engines.decoders.settings import NoSettings, read_settings
from engines.engine import Outputs
from ingest.contract.records import Detection


class RtdetrDecoder:
    """Decoder of RT-DETR and DETR.

    Each query gives a box as centre and size, in fractions of the input size, and class logits or scores.

    The decoder keeps overlapping boxes, because DETR and RT-DETR return one box for each object.

    The model has outputs of the shapes ``(N, queries, 4)`` and ``(N, queries, classes)``, or a single output of the
    shape ``(N, queries, 4 + classes)``. The decoder applies a sigmoid to logits, or a softmax if the model has the
    label ``background``, which DETR calls "no object".
    """

    def __init__(self, options: DecoderOptions) -> None:
        read_settings(NoSettings, "rtdetr", options.settings)
        self._options = options

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return the best class of each query, background excluded, if that class scores at least ``min_score``."""
        boxes, scores = self._read(outputs, len(rows))
        corners = from_centres(boxes.clip(-FAR, FAR)) * input_size(self._options)
        return [self._decode_row(*one) for one in zip(corners, scores, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return why the outputs are not box centres and sizes in fractions of the input size; "" if they are."""
        boxes, _ = self._read(outputs, len(next(iter(outputs.values()))))
        return (
            not_shares(boxes, "Use the decoder corners with unit = px for corners in px")
            or not_sizes(boxes, "Use the decoder ssd with form = offsets")
            or not_centres(boxes, "Use the decoder corners")
        )

    def _read(self, outputs: Outputs, rows: int) -> tuple[Floats, Floats]:
        if len(outputs) > 1:
            return boxes_and_scores(outputs, rows, len(self._options.labels))
        both = only_output(outputs, (rows, "queries", 4 + len(self._options.labels)))
        return both[..., :4], both[..., 4:]

    def _decode_row(self, corners: Floats, scores: Floats, row: FrameRegion) -> list[Detection]:
        labels = self._options.labels
        if not are_scores(scores):  # decided per image, so that no image depends on the rest of the batch
            scores = activated(scores, "softmax" if BACKGROUND in labels else "sigmoid")
        indices, classes, best = likely(without_background(scores, labels), self._options.min_score)
        order = np.argsort(-best, kind="stable")[:MAX_DETECTIONS]
        return detections(corners[indices[order]], best[order], classes[order], row, self._options)
