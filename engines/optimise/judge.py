"""Compare the detections of an optimised model with labels, or with the detections of the original. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from engines.decoders import BACKGROUND
from engines.exceptions import OptimiseFailed
from ingest.contract.records import Detection

_SAME_PLACE = 0.5
"""Minimum intersection over union of two boxes of one object, as in PASCAL VOC."""

Found = Sequence[Sequence[Detection]]
"""Detections of each picture, highest score first."""


class Quality(BaseModel):
    """Quality of an optimised model. ``loss`` is ``original`` minus ``optimised``.

    ``accuracy`` is the share of labelled pictures with the right class. ``agreement`` of a classifier is the share of
    pictures to which both models give the same class. ``agreement`` of a detector is the F1 score of its objects
    against those of the original: same class, and an intersection over union of at least 0.5.
    """

    model_config = ConfigDict(frozen=True)

    measure: Literal["accuracy", "agreement"]
    original: float
    optimised: float
    loss: float
    pictures: int


def accuracy(original: Found, optimised: Found, labels: Sequence[str]) -> Quality:
    """Return the accuracy of two classifiers on labelled pictures. A picture without a detection counts as
    background."""
    before, after = (
        sum(top_label(found) == label for found, label in zip(each, labels, strict=True)) / len(labels)
        for each in (original, optimised)
    )
    return _quality("accuracy", before, after, len(labels))


def class_agreement(original: Found, optimised: Found) -> Quality:
    """Return the share of pictures to which two classifiers give the same class."""
    same = sum(top_label(a) == top_label(b) for a, b in zip(original, optimised, strict=True))
    return _quality("agreement", 1.0, same / len(original), len(original))


def object_agreement(original: Found, optimised: Found) -> Quality:
    """Return the F1 score of the objects of a detector against those of the original.

    Raise OptimiseFailed if neither model finds an object in any picture, because such pictures measure no agreement.
    """
    matches = sum(matched(a, b) for a, b in zip(original, optimised, strict=True))
    total = sum(map(len, original)) + sum(map(len, optimised))
    if not total:
        raise OptimiseFailed(
            f"the models find no object in {len(original)} pictures: expected pictures with objects. Choose other "
            "pictures, or lower --min-score"
        )
    return _quality("agreement", 1.0, 2 * matches / total, len(original))


def matched(original: Sequence[Detection], optimised: Sequence[Detection]) -> int:
    """Return the number of objects that both lists have. Each object is matched once, highest score first."""
    left = list(original)
    count = 0
    for detection in optimised:
        same = [other for other in left if other.label == detection.label]
        best = max(same, key=lambda other: other.box.iou(detection.box), default=None)
        if best is not None and best.box.iou(detection.box) >= _SAME_PLACE:
            left.remove(best)
            count += 1
    return count


def top_label(found: Sequence[Detection]) -> str:
    """Return the label with the highest score, or the background if there is no detection."""
    return found[0].label if found else BACKGROUND


def _quality(measure: Literal["accuracy", "agreement"], before: float, after: float, pictures: int) -> Quality:
    return Quality(
        measure=measure,
        original=round(before, 4),
        optimised=round(after, 4),
        loss=round(before - after, 4),
        pictures=pictures,
    )
