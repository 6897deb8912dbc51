"""Usual pixel preparation, decoder settings and labels of model families: facts that an ONNX file does not hold."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from engines import decoders
from engines.decoders import Proposal
from engines.repository.adopt import COCO_LABELS
from engines.repository.inspection import scales_itself
from engines.repository.manifest import Decoding
from engines.repository.report import Colour, FitName, Overrides, Setting, Source
from engines.repository.wrap import NO_MEAN, NO_SCALE, ForeignInput, Triple

_MAX_LABELS = 100_000
_BYTE: Triple = (1 / 255, 1 / 255, 1 / 255)
_SIGNED: Triple = (1 / 127.5, 1 / 127.5, 1 / 127.5)


class FamilyUsage(NamedTuple):
    """Preparation of pixels (colour order, resizing, normalisation) that is usual in a family of models."""

    family: str
    colour: Colour
    fit: FitName
    mean: Triple = NO_MEAN
    scale: Triple = NO_SCALE


_IMAGENET = FamilyUsage(
    "PyTorch classifiers", "rgb", "crop", (123.675, 116.28, 103.53), (1 / 58.395, 1 / 57.12, 1 / 57.375)
)
"""Mean and standard deviation of ImageNet's pixels on the scale 0..255, with torchvision's values."""
_KERAS = FamilyUsage("Keras classifiers", "rgb", "stretch", (127.5, 127.5, 127.5), _SIGNED)
_USAGE = {
    "yolox": FamilyUsage("YOLOX", "bgr", "letterbox"),
    "yolov5": FamilyUsage("YOLOv5", "rgb", "letterbox", scale=_BYTE),
    "yolov8": FamilyUsage("YOLOv8 and later", "rgb", "letterbox", scale=_BYTE),
    "end2end": FamilyUsage("detectors with NMS inside", "rgb", "letterbox", scale=_BYTE),
    "rtdetr": FamilyUsage("RT-DETR", "rgb", "stretch", scale=_BYTE),
    "corners": FamilyUsage("UltraFace", "rgb", "stretch", (127.0, 127.0, 127.0), (1 / 128, 1 / 128, 1 / 128)),
    "ssd": FamilyUsage("TensorFlow SSD", "rgb", "stretch", (127.5, 127.5, 127.5), _SIGNED),
}

_ULTRAFACE_PRIORS = {"8": [10, 16, 24], "16": [32, 48], "32": [64, 96], "64": [128, 192, 256]}
"""Maps the stride in px of each UltraFace feature map to the sides in px of its square prior boxes."""
_VARIANTS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "corners": ({}, {"unit": "px"}),
    "end2end": ({}, {"unit": "share"}, {"unit": "share", "order": "top-left"}),
    "ssd": (
        {},
        {"scores": "softmax"},
        {"form": "centres"},
        {"form": "centres", "scores": "softmax"},
        {"form": "offsets", "priors": _ULTRAFACE_PRIORS},
    ),
}


_TENSORFLOW_ROWS = {"unit": "share", "order": "top-left", "first_class": 1}
"""Settings of the outputs of TensorFlow's Object Detection API after non-maximum suppression."""
_ORDERED = frozenset({"corners", "end2end", "ssd"})
"""Decoders whose boxes may have x before y, or y before x."""


def variants(decoder: str) -> tuple[dict[str, Any], ...]:
    """Return the combinations of a decoder's settings that models use, the most usual combination first."""
    return tuple(dict(settings) for settings in _VARIANTS.get(decoder, ({},)))


def named_settings(decoder: str, outputs: Iterable[str]) -> dict[str, Any]:
    """Return the decoder settings that the names of the model's outputs state."""
    names = list(outputs)
    if decoder == "end2end" and decoders.tensorflow_outputs(names):
        return dict(_TENSORFLOW_ROWS)
    if decoder in _ORDERED and any("raw_detection_boxes" in name for name in names):
        return {"order": "top-left"}
    return {}


def hidden_order(decoder: str, producer: str) -> dict[str, Any]:
    """Return the settings for the order of coordinates and classes that neither names nor values of the outputs show.

    A model that was converted from TensorFlow may give x before y or y before x, whatever the shapes of its outputs.
    """
    if producer != "tf2onnx" or decoder not in _ORDERED:
        return {}
    return {"order": "left-top"} | ({"first_class": 0} if decoder == "end2end" else {})


def usage_of(
    model: Any, given: ForeignInput, decoder: str, decoding: Decoding, metadata: Mapping[str, str]
) -> tuple[FamilyUsage, str, Source]:
    """Return (usual preparation of pixels, reason, source); the source is ``file`` or ``assumed``."""
    family = "corners" if "priors" in decoding.settings else decoder  # both families are UltraFace
    usage = _USAGE.get(family) or (_KERAS if given.layout == "nhwc" else _IMAGENET)
    reason = f"usual for {usage.family}"
    if scales_itself(model):
        usage = usage._replace(mean=NO_MEAN, scale=NO_SCALE)
        reason += "; the graph itself normalises the pixels"
    if "names" in metadata and "stride" in metadata and usage.scale == _BYTE:  # Ultralytics writes both keys
        return usage, f"{reason}; the metadata are those of its exporter", "file"
    return usage, reason, "assumed"


def labels_of(proposal: Proposal, decoding: Decoding, overrides: Overrides, metadata: Mapping[str, str]) -> Setting:
    """Return labels from the user, else from the metadata, else the usual labels for the number of classes."""
    if proposal.decoder in decoders.EMBEDDERS and not overrides.labels:
        return Setting(key="labels", value=(decoders.UNNAMED,), source="file", reason="an embedding has no classes")
    named, count = labels_in(metadata), proposal.classes
    if overrides.labels:
        return Setting(key="labels", value=overrides.labels, source="option", reason="--labels")
    if named and count in (None, len(named)):
        return Setting(key="labels", value=named, source="file", reason="names in the file's metadata")
    if count == len(COCO_LABELS) or count is None:
        reason = "80 classes, as COCO" if count else "the outputs do not show the number of classes; COCO"
        if proposal.decoder == "end2end" and "first_class" not in decoding.settings:
            reason += "; nor whether the first class is 0 or 1"
        return Setting(key="labels", value=COCO_LABELS, source="assumed", reason=reason)
    names = tuple(f"class_{i}" for i in range(count))
    if count == 2 and "priors" in decoding.settings:
        names = (decoders.BACKGROUND, "face")
    elif count == 2 and proposal.decoder in ("corners", "ssd"):
        names = (decoders.BACKGROUND, "object")
    elif count == 1:
        names = ("object",)
    return Setting(key="labels", value=names, source="assumed", reason=f"{count} classes without names in the file")


def labels_in(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return the class names that Ultralytics writes into a model's metadata, or () if there are none."""
    try:
        names = ast.literal_eval(metadata.get("names", "()"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    if isinstance(names, dict):
        names = [names.get(i) for i in range(len(names))]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name for name in names):
        return ()
    return tuple(names) if len(set(names)) == len(names) <= _MAX_LABELS else ()
