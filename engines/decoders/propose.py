"""Proposes decoders that may fit a model, from the shapes of its outputs. All functions are pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from engines.decoders.yolox import STRIDES

Shape = Sequence[int | None]
"""Shape of a model output, with the batch axis first. None stands for a dimension that the model does not declare."""

MOST_QUERIES = 1000
"""Maximum number of boxes of a model that needs no non-maximum suppression (NMS). RT-DETR returns 300 boxes, and
models that contain NMS return 100 to 1,000. Models with grids or prior boxes, which need NMS, have more boxes: 2,100
cells for an input of 320 px, or 4,420 prior boxes in UltraFace."""
_TENSORFLOW = frozenset({"detection_boxes", "detection_classes", "detection_scores"})
_ROW = 6
"""Length of the rows of a model that contains non-maximum suppression: left, top, right, bottom, score, class."""


class Proposal(NamedTuple):
    """A decoder that may be able to read a model's outputs.

    ``output`` has the names of the model outputs to keep, separated by commas, or "" to keep all outputs. ``classes``
    is the number of labels, including the background, or None if the output shapes do not show the number.
    """

    decoder: str
    reason: str
    classes: int | None = None
    output: str = ""


def propose(
    outputs: Mapping[str, Shape], labels: int | None = None, size: tuple[int, int] | None = None
) -> list[Proposal]:
    """Return the decoders that read outputs of the given shapes, most likely first, or an empty list.

    ``labels`` is the number of labels, or None if the number is unknown. ``size`` is the width and the height of the
    model's input in px. Shapes alone do not distinguish raw grids from decoded grids, or logits from scores. Because
    shapes alone are ambiguous, the caller must check each proposed decoder with ``refusal``.
    """
    found = list(_of_several(outputs, labels))
    if names := tensorflow_outputs(outputs):
        found.insert(
            0, Proposal("end2end", "the outputs have the names of TensorFlow's detectors", None, ",".join(names))
        )
    for name, shape in outputs.items():
        keep = name if len(outputs) > 1 else ""
        found += [proposal._replace(output=keep) for proposal in _of_one(name, shape, labels, size)]
    return found


def _of_one(name: str, shape: Shape, labels: int | None, size: tuple[int, int] | None) -> Iterator[Proposal]:
    if len(shape) == 1 or (len(shape) == 2 and shape[1] == 1):
        if labels in (None, 1):
            yield Proposal("sigmoid", f"{name} has one number per image", 1)
        if labels in (None, 2):
            yield Proposal("binary", f"{name} has one number per image: the score of the second of two labels", 2)
    elif len(shape) == 2 and _agree(shape[1], labels):
        reason = f"{name} has {shape[1] or 'some'} numbers per image"
        yield Proposal("softmax", f"{reason}: exclusive classes", shape[1])
        yield Proposal("sigmoid", f"{reason}: independent labels", shape[1])
    elif len(shape) == 3:
        yield from _of_table(name, shape[1], shape[2], labels, size)


def _of_table(
    name: str, rows: int | None, columns: int | None, labels: int | None, size: tuple[int, int] | None
) -> Iterator[Proposal]:
    few = rows is None or rows <= MOST_QUERIES
    if columns == _ROW and few:
        yield Proposal("end2end", f"{name} has few rows of 6: left, top, right, bottom, score, class")
    if _after(4, rows, labels) and (labels is not None or columns is None or columns > (rows or 0)):
        yield Proposal("yolov8", f"{name} has 4 box values and the class scores as rows", _less(rows, 4))
    if labels is None and rows is not None and columns is not None and rows < columns:
        return
    if _after(5, columns, labels):
        classes = _less(columns, 5)
        if size is not None and rows == cells(*size):
            yield Proposal("yolox", f"{name} has a row for each cell of the strides 8, 16 and 32", classes)
        if rows is None or not few or labels is not None:
            yield Proposal("yolov5", f"{name} has 4 box values, objectness and class scores as columns", classes)
    if _after(4, columns, labels) and few:
        yield Proposal("rtdetr", f"{name} has few rows of 4 box values and class scores", _less(columns, 4))


def _of_several(outputs: Mapping[str, Shape], labels: int | None) -> Iterator[Proposal]:
    boxes = {name: shape for name, shape in outputs.items() if len(shape) == 3 and shape[2] == 4}
    for name, (_, count, _) in boxes.items():
        others = {other: shape for other, shape in outputs.items() if other != name}
        flat = [shape for shape in others.values() if len(shape) == 2 and shape[1] == count]
        if len(flat) == 2:
            yield Proposal("end2end", f"{name} has 4 corners for each score and class")
        for other, shape in others.items():
            if len(shape) == 3 and shape[1] == count and _agree(shape[2], labels):
                yield from _of_pair(f"{name} has 4 values for each row of {other}", count, shape[2])


def _of_pair(reason: str, count: int | None, classes: int | None) -> Iterator[Proposal]:
    if count is not None and count <= MOST_QUERIES:
        yield Proposal("rtdetr", f"{reason}, with few rows", classes)
    yield Proposal("corners", f"{reason}: corners", classes)
    yield Proposal("ssd", f"{reason}: corners or offsets from prior boxes", classes)


def tensorflow_outputs(outputs: Iterable[str]) -> list[str]:
    """Return the outputs that ``end2end`` needs from a detector of TensorFlow's Object Detection API, else [].

    https://github.com/tensorflow/models/blob/master/research/object_detection/exporter_lib_v2.py defines the names of
    the outputs.
    """
    names = {name.partition(":")[0].rpartition("/")[2]: name for name in outputs}
    if not _TENSORFLOW.issubset(names):
        return []
    return [names[role] for role in ("num_detections", *sorted(_TENSORFLOW)) if role in names]


def cells(width: int, height: int) -> int:
    """Return the total number of cells of the three grids with strides of 8, 16 and 32 px over an input."""
    return sum((width // stride) * (height // stride) for stride in STRIDES)


def _agree(found: int | None, wanted: int | None) -> bool:
    return found is None or wanted is None or found == wanted


def _after(first: int, found: int | None, labels: int | None) -> bool:
    """Return whether an output axis of length ``found`` fits a decoder that expects ``first`` values and one score
    for each label."""
    return found is None or found == first + labels if labels is not None else found is None or found > first


def _less(found: int | None, first: int) -> int | None:
    return None if found is None else found - first
