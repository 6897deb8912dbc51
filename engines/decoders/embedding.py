"""The decoder of models that describe the appearance of an object by a vector."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engines.decoders.base import DecoderOptions, FrameRegion, clipped, only_output
from engines.decoders.settings import NoSettings, read_settings
from engines.engine import Outputs
from engines.exceptions import InferenceFailed
from ingest.contract.records import MAX_EMBEDDING, Detection, Embedding

UNNAMED = "embedding"
"""Name of an embedding that a pipeline has not named yet, and the label of a model of embeddings, which has no
classes."""
_LARGEST = 127
"""Largest component of an embedding in a result, whose components are int8."""
_SMALLEST = 1e-30
"""Largest component below which a vector counts as zero. The factor that scales a smaller one to ``_LARGEST`` is too
large for float32."""
_ALIKE = 1e-3
"""Largest difference between the components of two embeddings that count as equal. Pictures of noise get embeddings
that differ by more if the model looks at the pictures at all."""


class EmbeddingDecoder:
    """Decoder of vectors of the shape ``(N, D)``, with D up to ``MAX_EMBEDDING``.

    A detection has the box of the region, and the direction of the vector as an embedding. A region with a vector of
    zeros, or of components below ``_SMALLEST``, gives no detection.
    """

    def __init__(self, options: DecoderOptions) -> None:
        read_settings(NoSettings, "embedding", options.settings)
        self._label = options.labels[0]

    def decode(self, outputs: Outputs, rows: Sequence[FrameRegion]) -> list[list[Detection]]:
        """Return a detection of each region, with the region's embedding."""
        vectors = only_output(outputs, (len(rows), "D"))
        if not 0 < vectors.shape[1] <= MAX_EMBEDDING:
            raise InferenceFailed(
                f"the model gives {vectors.shape[1]} numbers per image: expected 1 to {MAX_EMBEDDING} with the "
                "decoder embedding"
            )
        return [self._decode_row(vector, row) for vector, row in zip(vectors, rows, strict=True)]

    def misfit(self, outputs: Outputs) -> str:
        """Return a reason if all images have the same direction, else ""."""
        units = [values for values in map(_unit, next(iter(outputs.values()))) if values.any()]
        if not units:
            return "all vectors are zero: expected an embedding of each image"
        if len(units) > 1 and all(np.abs(units[0] - other).max() <= _ALIKE for other in units[1:]):
            return "all images have the same embedding: expected a model that distinguishes images"
        return ""

    def _decode_row(self, vector: npt.NDArray[np.float32], row: FrameRegion) -> list[Detection]:
        box, largest = clipped(row.region.box, row), float(np.abs(vector).max())
        if box is None or largest < _SMALLEST:
            return []
        values = np.rint(vector * np.float32(_LARGEST / largest)).astype(np.int8).tobytes()
        embedding = Embedding(name=UNNAMED, values=values)
        return [Detection(box=box, label=self._label, class_id=0, score=1.0, embeddings=(embedding,))]


def _unit(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return a vector of length 1 and the same direction; a vector of zeros stays unchanged."""
    length = float(np.sqrt((vector.astype(np.float64) ** 2).sum()))
    return np.asarray(vector / length, np.float32) if length else vector
