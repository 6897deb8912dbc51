"""Registry of output decoders by name: built-in decoders, and decoders of other installed packages."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import entry_points

from engines.decoders.base import DecoderOptions, FrameRegion, OutputDecoder, StatesUnprovenSettings, refusal
from engines.decoders.classes import BACKGROUND, BinaryDecoder, ClassifierDecoder, SigmoidDecoder, SoftmaxDecoder
from engines.decoders.embedding import UNNAMED, EmbeddingDecoder
from engines.decoders.end2end import EndToEndDecoder
from engines.decoders.propose import Proposal, propose, tensorflow_outputs
from engines.decoders.rtdetr import RtdetrDecoder
from engines.decoders.scored import CornersDecoder, SsdDecoder
from engines.decoders.yolo import Yolov5Decoder, Yolov8Decoder
from engines.decoders.yolox import YoloxDecoder
from engines.engine import Outputs
from engines.exceptions import DecoderNotLoaded, DecoderUnknown, ManifestError
from engines.repository.manifest import EMBEDDING

__all__ = [
    "BACKGROUND",
    "CLASSIFIERS",
    "EMBEDDERS",
    "ENTRY_POINTS",
    "READ_ONE_OUTPUT",
    "SECOND_STAGE",
    "SIGMOIDS",
    "UNNAMED",
    "ClassifierDecoder",
    "DecoderOptions",
    "FrameRegion",
    "OutputDecoder",
    "Proposal",
    "StatesUnprovenSettings",
    "known",
    "make",
    "propose",
    "readable",
    "refusal",
    "tensorflow_outputs",
]

ENTRY_POINTS = "sightline.decoders"
"""Entry point group in which other Python packages register their decoders."""
_BUILT_IN: dict[str, Callable[[DecoderOptions], OutputDecoder]] = {
    "binary": BinaryDecoder,
    "corners": CornersDecoder,
    EMBEDDING: EmbeddingDecoder,
    "end2end": EndToEndDecoder,
    "rtdetr": RtdetrDecoder,
    "sigmoid": SigmoidDecoder,
    "softmax": SoftmaxDecoder,
    "ssd": SsdDecoder,
    "yolov5": Yolov5Decoder,
    "yolov8": Yolov8Decoder,
    "yolox": YoloxDecoder,
}

CLASSIFIERS = frozenset({"binary", "sigmoid", "softmax"})
"""Names of the decoders that label a whole image region and give no boxes of objects. A pipeline whose model uses one
of these decoders classifies the moving regions of a frame."""

EMBEDDERS = frozenset({EMBEDDING})
"""Names of the decoders that describe a whole image region by a vector. Only a second-stage model can use one of
these decoders, because a vector neither labels nor locates an object."""

SECOND_STAGE = CLASSIFIERS | EMBEDDERS
"""Names of the decoders of second-stage models."""

SIGMOIDS = frozenset({"binary", "sigmoid"})
"""Names of the decoders that read scores between 0 and 1. The command that adds a model appends a sigmoid to logits
for these decoders."""

READ_ONE_OUTPUT = frozenset({"binary", EMBEDDING, "sigmoid", "softmax", "yolov5", "yolov8", "yolox"})
"""Names of the decoders that accept only models with exactly one output."""


def known() -> list[str]:
    """Return the names of all decoders, sorted."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=ENTRY_POINTS))})


def make(name: str, options: DecoderOptions) -> OutputDecoder:
    """Return a new decoder of the given name and options.

    Raise DecoderUnknown if no decoder has this name, DecoderNotLoaded if the decoder cannot be imported, and
    ManifestError for an unknown setting.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name](options)
    for point in entry_points(group=ENTRY_POINTS, name=name):
        try:
            plug_in = point.load()
        except (ImportError, AttributeError) as error:
            raise DecoderNotLoaded(name, point.value, error) from error
        decoder: OutputDecoder = plug_in(options)
        return decoder
    raise DecoderUnknown(name, known())


def readable(outputs: Outputs, rows: Sequence[FrameRegion], options: DecoderOptions) -> list[Proposal]:
    """Return the proposed decoders that can read a model's outputs with the decoder's default settings.

    ``outputs`` must be the model's outputs for a batch of several different images.
    """
    size = options.input_width, options.input_height
    found = []
    for proposal in propose({n: values.shape for n, values in outputs.items()}, len(options.labels), size):
        chosen = {proposal.output: outputs[proposal.output]} if proposal.output else outputs
        with contextlib.suppress(ManifestError):  # the decoder cannot work without settings
            decoder = make(proposal.decoder, replace(options, settings={}))
            if not refusal(decoder, chosen, rows):
                found.append(proposal)
    return found
