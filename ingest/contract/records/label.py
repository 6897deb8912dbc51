"""Decisions of people on the labels that models gave to objects."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.identity import FrameId
from ingest.contract.records.base import Box, Count, FrameRef, Id, Name, Record
from ingest.contract.records.incident import Person
from ingest.contract.records.shadow import Label, ModelId

Verdict = Literal["accept", "correct", "reject", "undo"]


class LabelDecision(Record):
    """The decision of a person about one object that a model has found in one frame.

    - ``accept``: ``label`` is right.
    - ``correct``: the box shows an object, but its label is ``corrected``.
    - ``reject``: the box shows no object, or nobody can tell.
    - ``undo``: all earlier decisions about the object are withdrawn.

    ``object`` is the object's id, and ``box``, ``label``, ``score`` and ``model`` (``name@version``) are as the model
    gave them. If there are several decisions on an object, the latest decision counts.
    """

    KIND: ClassVar[str] = "label-decision"

    object: Id
    verdict: Verdict
    corrected: Label = ""
    by: Person
    at_ns: Count
    camera: Name
    epoch: Count
    seq: Count
    captured_ns: Count
    width: Count
    height: Count
    source: FrameRef
    pipeline: Name
    model: ModelId
    box: Box
    label: Label
    score: float = Field(ge=0.0, le=1.0)

    @property
    def frame(self) -> FrameId:
        """Id of the frame that shows the object."""
        return FrameId(self.camera, self.epoch, self.seq)

    @property
    def decided(self) -> str:
        """The object's right label by this decision; empty if the object was rejected or the decision was
        withdrawn."""
        return {"accept": self.label, "correct": self.corrected}.get(self.verdict, "")

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.verdict == "correct") != bool(self.corrected.strip()):
            raise ValueError("expected corrected in a correction, and in no other decision")
        return self
