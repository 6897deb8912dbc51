"""Errors of the engine package. Every error derives from EngineError.

EngineError
├── EngineStateError    a method was called before load or after close
├── BadBatch            a batch does not have the shape or type of the model's input
├── ModelLoadFailed     a model cannot be loaded, or its outputs contradict its manifest
├── InferenceFailed     the backend failed on a batch
├── DeviceLost          the device cannot be used any more by this process
├── GpuError            a CUDA call failed; an engine raises it as InferenceFailed or DeviceLost
├── BuildCancelled      building a TensorRT plan was cancelled
├── ManifestError       a manifest is invalid, or does not match its model file
├── ModelUnknown        the repository does not have the model or the version
├── DecoderUnknown      no decoder has the name
├── DecoderNotLoaded    the decoder of another package cannot be loaded
├── PipelineUnknown     a batch belongs to a pipeline that is not configured
├── OptimiseFailed      a model cannot be made smaller or faster, or pictures cannot show that it is still good
├── PromotionRefused    a model version has no backtest that it passed
└── AdoptFailed         a foreign model cannot be added to the repository
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error of this package."""


class EngineStateError(EngineError):
    """A method was called in the wrong state, for example before ``load`` or after ``close``."""


class BadBatch(EngineError):
    """A batch does not have the shape or type of the model's input."""


class ModelLoadFailed(EngineError):
    """A model cannot be loaded, or its outputs contradict its manifest."""


class InferenceFailed(EngineError):
    """The backend failed on a batch. The error message is the backend's own message."""


class DeviceLost(EngineError):
    """This process cannot use the device any more and must end. A new process may be able to use the device."""


class GpuError(EngineError):
    """A CUDA call failed.

    The error message is CUDA's own message. An engine converts a GpuError to InferenceFailed or DeviceLost.
    """


class BuildCancelled(EngineError):
    """Building a TensorRT plan was cancelled."""


class ManifestError(EngineError):
    """A manifest is invalid, or does not match its model file."""


class ModelUnknown(EngineError):
    """The model repository does not hold the requested model or version."""


class DecoderUnknown(EngineError):
    """No decoder has the given name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"decoder {name!r} does not exist: expected one of {', '.join(known)}")


class DecoderNotLoaded(EngineError):
    """A decoder that another Python package registers cannot be loaded."""

    def __init__(self, name: str, target: str, error: Exception) -> None:
        super().__init__(
            f"decoder {name!r}: entry point {target} cannot be loaded: {type(error).__name__}: {error}: expected a "
            "class or function that takes DecoderOptions. Fix or reinstall the package that registers it"
        )


class PipelineUnknown(EngineError):
    """A batch belongs to a pipeline that is not configured.

    To recover, apply the site configuration again, then replay the dead letter.
    """


class AdoptFailed(EngineError):
    """A foreign model, made by other software, cannot be added to the model repository."""


class OptimiseFailed(EngineError):
    """A model cannot be made smaller or faster, or the pictures cannot show that the result is good."""


class PromotionRefused(EngineError):
    """A model version has no backtest that it passed, or its backtest no longer applies."""
