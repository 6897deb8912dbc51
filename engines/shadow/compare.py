"""Compare the detections of two models on one frame. Pure."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from ingest.contract.identity import FrameId
from ingest.contract.records import Box, Detection, ShadowDifference

MIN_IOU = 0.5
"""Minimum intersection over union of two boxes that show the same object: the usual bound of PASCAL VOC."""
SCORE_TOLERANCE = 0.1
"""Two scores count as equal if their difference is at most this number."""


class DetectionComparison(NamedTuple):
    """Result of a comparison.

    ``agreed`` maps each label to the number of objects that the served model and the candidate both found with this
    label.
    """

    agreed: Mapping[str, int]
    differences: tuple[ShadowDifference, ...]


def compare(served: Sequence[Detection], candidate: Sequence[Detection]) -> DetectionComparison:
    """Pair the detections of the served and the candidate model, and return the agreements and differences.

    The best pairs are formed first: pairs with equal labels before other pairs, then by larger overlap, then by
    smaller difference of the scores. Each detection has at most one partner.
    """
    pairs = sorted(
        (
            (s.label != c.label, -overlap, abs(s.score - c.score), i, j)
            for i, s in enumerate(served)
            for j, c in enumerate(candidate)
            if (overlap := _overlap(s.box, c.box)) >= MIN_IOU
        )
    )
    partners: dict[int, int] = {}
    taken: set[int] = set()
    for *_, i, j in pairs:
        if i not in partners and j not in taken:
            partners[i] = j
            taken.add(j)
    agreed: Counter[str] = Counter()
    differences: list[ShadowDifference] = []
    for i, found in enumerate(served):
        if i not in partners:
            differences.append(_difference("missed", found))
            continue
        other = candidate[partners[i]]
        if found.label != other.label:
            differences.append(_difference("label", found, other))
            continue
        agreed[found.label] += 1
        if abs(found.score - other.score) > SCORE_TOLERANCE:
            differences.append(_difference("score", found, other))
    differences += [_difference("extra", other) for j, other in enumerate(candidate) if j not in taken]
    return DetectionComparison(dict(agreed), tuple(differences))


def is_sampled(frame: FrameId, share: float) -> bool:
    """Return whether a frame belongs to the share of frames that candidates classify.

    The choice depends on the frame alone, so that every engine node and every repetition chooses the same frames for
    the candidates.
    """
    return zlib.crc32(str(frame).encode()) < share * 2**32


def _overlap(one: Box, other: Box) -> float:
    return 1.0 if one == other else one.iou(other)  # equal boxes without area have no intersection


def _difference(
    form: Literal["label", "score", "missed", "extra"], found: Detection, other: Detection | None = None
) -> ShadowDifference:
    return ShadowDifference(
        form=form,
        box=found.box,
        label=found.label,
        score=found.score,
        other_label=other.label if other else "",
        other_score=other.score if other else 0.0,
    )
