"""The options of a data set's export, and the examples that the export chose."""

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
    """The options of a data set's export.

    Times are in Unix ns, and frames captured at ``until_ns`` or later are excluded. With ``until_now``, the exported
    period ends at the present time. ``model`` is ``NAME`` or ``NAME@VERSION``; with ``review``, only the labels that
    people decided are used. A ``limit``, ``every_s`` or ``per_label`` of 0 means no limit. ``split`` has the shares
    of training, validation and test. ``margin`` widens a crop on each side by a share of the box's size.
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
        """Return the export's options as values for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class DatasetExample:
    """A chosen example of a data set: a frame with its labelled objects, or the crop of one object.

    ``reason`` says why the example was chosen. ``decided_by`` names the people who decided the labels; empty for
    labels of a model. ``file`` is the file name of the example's picture. ``place`` is the place of the example's
    camera: cameras of one place may show the same objects.
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
        """The labels of all objects of the example."""
        return [one.label for one in self.objects]
