"""What one pipeline found in one frame."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import FiniteFloat

from ingest.contract.identity import FrameId
from ingest.contract.records.base import Box, Count, FrameRef, Name, Record


class Detection(Record):
    """A labelled box, in pixels of the frame. ``score`` is in 0..1."""

    KIND: ClassVar[str] = "detection"

    box: Box
    label: str
    class_id: Count
    score: FiniteFloat


class Result(Record):
    """The one end of a delivered frame in one pipeline.

    ``classified`` with what was found (perhaps nothing), ``empty`` when there was nothing to look at, ``shed``
    with a reason. ``sampled`` is the frame's: its gate would have withheld it. ``model`` is ``name@version`` for a
    classified frame. ``motion`` and ``resting`` are the frame's, None also where a pipeline looks at whole frames;
    ``looked_at`` are the parts of it that the model was shown, as tight as they were named.
    """

    KIND: ClassVar[str] = "result"
    VERSION: ClassVar[tuple[int, int]] = (1, 2)

    camera: Name
    epoch: Count
    seq: Count
    lane: str
    pipeline: Name
    pipelines: tuple[Name, ...]
    captured_ns: Count
    finished_ns: Count
    width: Count
    height: Count
    source: FrameRef
    outcome: Literal["classified", "empty", "shed"]
    reason: str = ""
    model: str = ""
    detections: tuple[Detection, ...] = ()
    withheld: dict[str, Count] = {}
    sampled: bool = False
    motion: tuple[Box, ...] | None = None
    resting: tuple[Box, ...] | None = None
    looked_at: tuple[Box, ...] = ()
    traceparent: str = ""

    @property
    def id(self) -> FrameId:
        """The frame's identity."""
        return FrameId(self.camera, self.epoch, self.seq)
