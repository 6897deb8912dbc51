"""Decoders by name: the built-in decoders, and those that other packages add by the entry point
``sightline.decoders``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points

from engines.decoders.base import DecoderOptions, FrameRegion, OutputDecoder, refusal
from engines.decoders.classes import BACKGROUND, SigmoidDecoder, SoftmaxDecoder
from engines.decoders.yolox import YoloxDecoder
from engines.exceptions import DecoderUnknown

__all__ = [
    "BACKGROUND",
    "CLASSIFIERS",
    "READ_ONE_OUTPUT",
    "DecoderOptions",
    "FrameRegion",
    "OutputDecoder",
    "known",
    "make",
    "refusal",
]

_ENTRY_POINTS = "sightline.decoders"
_BUILT_IN: dict[str, Callable[[DecoderOptions], OutputDecoder]] = {
    "sigmoid": SigmoidDecoder,
    "softmax": SoftmaxDecoder,
    "yolox": YoloxDecoder,
}

CLASSIFIERS = frozenset({"sigmoid", "softmax"})
"""Decoders that label a whole region without locating objects in it. A pipeline with such a decoder looks at moving
regions."""

READ_ONE_OUTPUT = frozenset(_BUILT_IN)
"""Decoders that read a single output, which must be the only output of the model."""


def known() -> list[str]:
    """Return the names of all decoders, sorted."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=_ENTRY_POINTS))})


def make(name: str, options: DecoderOptions) -> OutputDecoder:
    """Return a new decoder. Raise DecoderUnknown."""
    if name in _BUILT_IN:
        return _BUILT_IN[name](options)
    for point in entry_points(group=_ENTRY_POINTS, name=name):
        decoder: OutputDecoder = point.load()(options)
        return decoder
    raise DecoderUnknown(name, known())
