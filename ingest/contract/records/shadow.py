"""Comparisons of a candidate model with the served model of a pipeline, frame by frame."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.identity import FrameId
from ingest.contract.records.base import Box, Count, FrameRef, Many, Name, Record, SmallMap

ModelId = Annotated[str, Field(max_length=200)]
Label = Annotated[str, Field(max_length=2000)]


class ShadowDifference(Record):
    """One object that the served model and the candidate model detect differently.

    - ``label``: both models detected the box, but with different labels.
    - ``score``: both models detected the box and label, but with scores that differ by more than a tolerance.
    - ``missed``: only the served model detected the object.
    - ``extra``: only the candidate model detected the object.

    ``box``, ``label`` and ``score`` come from the served model, or from the candidate if ``form`` is ``extra``. If
    ``form`` is ``label`` or ``score``, ``other_label`` and ``other_score`` come from the candidate.
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
        """Weight of the difference, 0..1.

        The weight is the difference of both scores if only the scores differ, else the higher score.
        """
        if self.form == "score":
            return abs(self.score - self.other_score)
        return max(self.score, self.other_score)


class ShadowRecord(Record):
    """Comparison of a candidate model with the served model on one frame, or the report that the candidate was
    switched off. ``served`` and ``candidate`` are ``name@version``. ``agreed`` counts, by label, the objects that
    both models found with the same label. If the candidate was switched off, ``off`` is the reason and the record has
    no frame.
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
        """The compared frame, None if the record says that the candidate was switched off."""
        return FrameId(self.camera, self.epoch, self.seq) if self.camera else None

    @model_validator(mode="after")
    def _frame_or_end(self) -> Self:
        if bool(self.off) == bool(self.camera):
            raise ValueError(
                "expected camera (a frame was compared) or off (the comparison ended) in a shadow record, not both"
            )
        return self
