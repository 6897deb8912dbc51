"""Summary of the comparisons of candidates with served models. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ingest.contract.records import ShadowDifference, ShadowRecord

FRAMES_SHOWN = 10
"""Number of frames with the largest differences that a report names."""


@dataclass(slots=True)
class LabelCounts:
    """Numbers of objects with one label.

    ``missed``, ``relabelled`` and ``found`` add up to the number of objects that the served model found.
    """

    found: int = 0
    """Number of objects that the served model and the candidate both found with this label."""
    missed: int = 0
    """Number of objects that only the served model found."""
    relabelled: int = 0
    """Number of objects with this label to which the candidate gave another label."""
    extra: int = 0
    """Number of objects that only the candidate found."""


@dataclass
class ShadowReport:
    """Agreement of a candidate with the served model of a pipeline, over all frames whose records were added.

    A second record of a frame is ignored, because nodes repeat comparisons after a crash.
    """

    pipeline: str
    served: str
    candidate: str
    frames: int = 0
    agreeing_frames: int = 0
    """Number of frames in which the served model and the candidate found the same objects with the same labels."""
    score_differences: int = 0
    labels: dict[str, LabelCounts] = field(default_factory=dict)
    off: str = ""
    """Reason why the candidate was last switched off; empty if frames have been compared since then."""
    _seen: set[tuple[str, int, int]] = field(default_factory=set)
    _largest: list[tuple[float, int, ShadowRecord]] = field(default_factory=list)

    def add(self, record: ShadowRecord) -> None:
        """Add a record of the report's candidate. Ignore records of other pipelines, candidates and served models."""
        if (record.pipeline, record.candidate) != (self.pipeline, self.candidate):
            return
        if record.off:
            self.off = record.off
            return
        frame = (record.camera or "", record.epoch, record.seq)
        if record.served != self.served or frame in self._seen:
            return
        self._seen.add(frame)
        self.off = ""
        self.frames += 1
        forms = Counter(difference.form for difference in record.differences)
        self.score_differences += forms["score"]
        self.agreeing_frames += len(record.differences) == forms["score"]
        count_labels(self.labels, record.agreed, record.differences)
        weight = sum(difference.weight for difference in record.differences)
        if weight:
            entry = (weight, -self.frames, record)  # of equal weights, the earlier frame stays
            (heapq.heappush if len(self._largest) < FRAMES_SHOWN else heapq.heappushpop)(self._largest, entry)

    @property
    def agreement(self) -> float:
        """Fraction of frames in which the served model and the candidate agree, 0..1; 1 if there are no frames."""
        return self.agreeing_frames / self.frames if self.frames else 1.0

    def largest(self) -> list[tuple[float, ShadowRecord]]:
        """Return (weight, record) of the frames with the largest differences, in descending order of weight."""
        return [(weight, record) for weight, _, record in sorted(self._largest, key=lambda e: e[:2], reverse=True)]

    def as_json(self) -> dict[str, Any]:
        """Return the report as a dictionary that can be serialised as JSON."""
        return {
            "pipeline": self.pipeline,
            "served": self.served,
            "candidate": self.candidate,
            "off": self.off,
            "frames": self.frames,
            "agreement": round(self.agreement, 4),
            "score_differences": self.score_differences,
            "labels": {label: asdict(counts) for label, counts in sorted(self.labels.items())},
            "largest": [
                {
                    "frame": str(record.frame),
                    "captured_ns": record.captured_ns,
                    "weight": round(weight, 3),
                    "differences": [difference.model_dump(mode="json") for difference in record.differences],
                }
                for weight, record in self.largest()
            ],
        }


def count_labels(
    labels: dict[str, LabelCounts], agreed: Mapping[str, int], differences: Iterable[ShadowDifference]
) -> None:
    """Add the comparison of one frame to the numbers of objects by label."""
    for label, count in agreed.items():
        labels.setdefault(label, LabelCounts()).found += count
    for difference in differences:
        counts = labels.setdefault(difference.label, LabelCounts())
        counts.missed += difference.form == "missed"
        counts.relabelled += difference.form == "label"
        counts.extra += difference.form == "extra"


class ShadowHistory:
    """The shadow reports of one pipeline: one report for each pair of served model and candidate."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._reports: dict[tuple[str, str], ShadowReport] = {}
        self._latest: dict[str, tuple[str, str]] = {}
        """Maps each candidate to the (served model, candidate) of its latest report. The candidate with the latest
        record is the last key."""

    def add(self, record: ShadowRecord) -> None:
        """Add a record, in the order of the topic. Ignore records of other pipelines."""
        if record.pipeline != self._pipeline:
            return
        key = (record.served, record.candidate)
        if record.off:
            key = self._latest.get(record.candidate, key)
        self._latest.pop(record.candidate, None)
        self._latest[record.candidate] = key
        self._reports.setdefault(key, ShadowReport(self._pipeline, *key)).add(record)

    def candidates(self) -> list[str]:
        """Return the candidates in the order of their latest records."""
        return list(self._latest)

    def report(self, candidate: str) -> ShadowReport:
        """Return the report of a candidate's comparison with the model that was served last. Raise KeyError."""
        return self._reports[self._latest[candidate]]
