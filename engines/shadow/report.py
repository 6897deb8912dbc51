"""Summary of the comparisons of candidates with served models. Pure."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ingest.contract.records import ShadowRecord

FRAMES_SHOWN = 10
"""Number of frames with the largest differences that a report names."""


@dataclass(slots=True)
class LabelCounts:
    """Objects of one label. ``missed``, ``relabelled`` and ``found`` add up to the objects of the served model."""

    found: int = 0
    """Objects that both models found with this label."""
    missed: int = 0
    """Objects that only the served model found."""
    relabelled: int = 0
    """Objects to which the candidate gave another label."""
    extra: int = 0
    """Objects that only the candidate found."""


@dataclass
class ShadowReport:
    """Agreement of a candidate with the served model of a pipeline, over all frames that were added.

    A frame that was added before is ignored, because nodes repeat comparisons after a crash.
    """

    pipeline: str
    served: str
    candidate: str
    frames: int = 0
    agreeing_frames: int = 0
    """Frames in which both models found the same objects with the same labels."""
    score_differences: int = 0
    labels: dict[str, LabelCounts] = field(default_factory=dict)
    off: str = ""
    """Reason for which the candidate was switched off last; empty if frames were compared afterwards."""
    _seen: set[tuple[str, int, int]] = field(default_factory=set)
    _largest: list[tuple[float, int, ShadowRecord]] = field(default_factory=list)

    def add(self, record: ShadowRecord) -> None:
        """Add a record of this candidate. Ignore records of other pipelines, candidates and served models."""
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
        self._count_labels(record)
        weight = sum(difference.weight for difference in record.differences)
        if weight:
            entry = (weight, -self.frames, record)  # of equal weights, the earlier frame stays
            (heapq.heappush if len(self._largest) < FRAMES_SHOWN else heapq.heappushpop)(self._largest, entry)

    @property
    def agreement(self) -> float:
        """Share of frames in which both models agree, 0..1; 1 without frames."""
        return self.agreeing_frames / self.frames if self.frames else 1.0

    def largest(self) -> list[tuple[float, ShadowRecord]]:
        """Return the frames with the largest differences and their weights, the largest first."""
        return [(weight, record) for weight, _, record in sorted(self._largest, key=lambda e: e[:2], reverse=True)]

    def as_json(self) -> dict[str, Any]:
        """Return the report as values fit for JSON."""
        return {
            "pipeline": self.pipeline,
            "served": self.served,
            "candidate": self.candidate,
            "off": self.off,
            "frames": self.frames,
            "agreement": round(self.agreement, 4),
            "score_differences": self.score_differences,
            "labels": {
                label: {
                    "found": counts.found,
                    "missed": counts.missed,
                    "relabelled": counts.relabelled,
                    "extra": counts.extra,
                }
                for label, counts in sorted(self.labels.items())
            },
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

    def _count_labels(self, record: ShadowRecord) -> None:
        for label, count in record.agreed.items():
            self._of(label).found += count
        for difference in record.differences:
            counts = self._of(difference.label)
            counts.missed += difference.form == "missed"
            counts.relabelled += difference.form == "label"
            counts.extra += difference.form == "extra"

    def _of(self, label: str) -> LabelCounts:
        return self.labels.setdefault(label, LabelCounts())


class ShadowHistory:
    """The reports of one pipeline by served model and candidate, from its records in the order of the topic."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._reports: dict[tuple[str, str], ShadowReport] = {}
        self._latest: dict[str, tuple[str, str]] = {}
        """Key of the last report by candidate. The candidate that was added last comes last."""

    def add(self, record: ShadowRecord) -> None:
        """Add a record. Ignore records of other pipelines."""
        if record.pipeline != self._pipeline:
            return
        key = (record.served, record.candidate)
        if record.off:
            key = self._latest.get(record.candidate, key)
        self._latest.pop(record.candidate, None)
        self._latest[record.candidate] = key
        self._reports.setdefault(key, ShadowReport(self._pipeline, *key)).add(record)

    def candidates(self) -> list[str]:
        """Return the candidates, the latest last."""
        return list(self._latest)

    def report(self, candidate: str) -> ShadowReport:
        """Return the report of a candidate beside the model that was served last. Raise KeyError."""
        return self._reports[self._latest[candidate]]
