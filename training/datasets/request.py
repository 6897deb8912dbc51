"""The options of an export, and the chosen examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from stream.labels.candidates import CandidateFrame, CandidateObject
from stream.labels.preference import USUAL_SHARES

Layout = Literal["folders", "coco"]
Duplicates = Literal["drop", "group"]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class DatasetRequest:
    """The options of an export.

    Times are in Unix ns, and ``until_ns`` is excluded. With ``until_now``, the period ends at the present time.
    ``model`` is ``NAME`` or ``NAME@VERSION``; with ``review``, only decisions of people are labels. A ``limit``,
    ``every_s`` or ``per_label`` of 0 means no limit. ``split`` has the shares of ``SPLITS``. ``margin`` is the margin
    of a crop on each side, as a share of the box's size.
    """

    cameras: tuple[str, ...]
    since_ns: int
    until_ns: int
    until_now: bool = False
    layout: Layout = "folders"
    pipeline: str = ""
    model: str = ""
    review: bool = False
    labels: tuple[str, ...] = ()
    min_score: float = 0.3
    limit: int = 2000
    per_label: int = 0
    every_s: float = 0.0
    prefer: Mapping[str, float] = field(default_factory=lambda: dict(USUAL_SHARES))
    margin: float = 0.1
    split: tuple[float, float, float] = (0.7, 0.15, 0.15)
    block_s: float = 600.0
    gap_s: float = 10.0
    hold_out: tuple[str, ...] = ()
    duplicates: Duplicates = "drop"
    owner: str = ""
    licence: str = ""
    purpose: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the options as values that can be written as JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class DatasetExample:
    """A chosen example: a frame with its labelled objects, or the crop of one object.

    ``reason`` is the reason for the choice. ``decided_by`` names the people who decided the labels, empty for labels
    of a model. ``file`` is the name of the picture's file. ``place`` names the cameras that may show the same scene.
    """

    key: str
    frame: CandidateFrame
    objects: tuple[CandidateObject, ...]
    reason: str
    place: str = ""
    file: str = ""
    decided_by: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The labels of all objects."""
        return [one.label for one in self.objects]
