"""Comparisons of a candidate model with the served model of a pipeline, frame by frame."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.identity import FrameId
from ingest.contract.records.base import Box, Count, FrameRef, Many, Name, Record, SmallMap

ModelId = Annotated[str, Field(max_length=200)]
Label = Annotated[str, Field(max_length=2000)]


class ShadowDifference(Record):
    """One object on which the two models differ.

    - ``label``: both models have the box, with different labels.
    - ``score``: both have the box and label, with scores that differ by more than a tolerance.
    - ``missed``: only the served model has the object.
    - ``extra``: only the candidate has the object.

    ``box``, ``label`` and ``score`` are those of the served model, or of the candidate for ``extra``.
    ``other_label`` and ``other_score`` are those of the candidate for ``label`` and ``score``.
    """

    KIND: ClassVar[str] = "difference"

    form: Literal["label", "score", "missed", "extra"]
    box: Box
    label: Label
    score: float
    other_label: Label = ""
    other_score: float = 0.0

    @property
    def weight(self) -> float:
        """Weight of the difference, 0..1: the score that the models disagree about."""
        if self.form == "score":
            return abs(self.score - self.other_score)
        return max(self.score, self.other_score)


class ShadowRecord(Record):
    """Comparison of the candidate with the served model on one frame, or the end of a candidate.

    ``served`` and ``candidate`` are ``name@version``. ``agreed`` counts, by label, the objects that both models found
    with the same label. If ``off`` is not empty, the record has no frame: the candidate was switched off for that
    reason.
    """

    KIND: ClassVar[str] = "shadow"

    pipeline: Name
    served: ModelId = ""
    candidate: ModelId
    written_ns: Count
    off: Annotated[str, Field(max_length=2000)] = ""
    camera: Name | None = None
    epoch: Count = 0
    seq: Count = 0
    captured_ns: Count = 0
    source: FrameRef | None = None
    agreed: Annotated[dict[Label, Count], SmallMap] = {}
    differences: Many[ShadowDifference] = ()

    @property
    def frame(self) -> FrameId | None:
        """The compared frame; None for the end of a candidate."""
        return FrameId(self.camera, self.epoch, self.seq) if self.camera else None

    @model_validator(mode="after")
    def _frame_or_end(self) -> Self:
        if bool(self.off) == bool(self.camera):
            raise ValueError("expected either a camera, or a reason in off")
        return self
