"""The result of one pipeline for one frame."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import FiniteFloat

from ingest.contract.records.base import Box, Count, Name, Record
from ingest.contract.records.frame import RoutedFrame


class Detection(Record):
    """A labelled box, in pixels of the frame. ``score`` is in 0..1."""

    KIND: ClassVar[str] = "detection"

    box: Box
    label: str
    class_id: Count
    score: FiniteFloat


class Result(RoutedFrame):
    """The final state of a delivered frame in one pipeline.

    The outcome is ``classified`` with detections (perhaps none), ``empty`` when no region of the frame was worth a
    look, or ``shed`` with a reason. ``model`` is ``name@version`` for a classified frame. ``looked_at`` are the boxes
    that the model was shown, as tight as the agent reported them.
    """

    KIND: ClassVar[str] = "result"
    VERSION: ClassVar[tuple[int, int]] = (1, 2)

    pipeline: Name
    finished_ns: Count
    outcome: Literal["classified", "empty", "shed"]
    model: str = ""
    detections: tuple[Detection, ...] = ()
    looked_at: tuple[Box, ...] = ()
