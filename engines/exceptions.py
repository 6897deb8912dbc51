"""What can go wrong in an engine node.

EngineError
├── EngineStateError    a method was called before load, or after close
├── BadBatch            a batch does not have the shape or type that the model wants
├── ModelLoadFailed     a model cannot be loaded, or its outputs are not what its manifest promises
├── InferenceFailed     the back end failed on a batch
├── ManifestError       a manifest cannot be used, or the file is not the one it was written for
├── ModelUnknown        the repository has no such model or version
├── DecoderUnknown      no decoder has that name
├── PipelineUnknown     a batch belongs to a pipeline that the configuration does not have
└── AdoptFailed         a foreign model cannot be taken into the repository
"""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error of this package."""


class EngineStateError(EngineError):
    """A method was called before load, or after close."""


class BadBatch(EngineError):
    """A batch does not have the shape or type that the model wants."""


class ModelLoadFailed(EngineError):
    """A model cannot be loaded, or its outputs are not what its manifest promises."""


class InferenceFailed(EngineError):
    """The back end failed on a batch. The text is the back end's own."""


class ManifestError(EngineError):
    """A manifest cannot be used, or the file is not the one it was written for."""


class ModelUnknown(EngineError):
    """The repository has no such model or version."""


class DecoderUnknown(EngineError):
    """No decoder has that name."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"no decoder {name!r}: expected one of {', '.join(known)}")


class PipelineUnknown(EngineError):
    """A batch belongs to a pipeline that the configuration does not have: apply the site again, then replay."""


class AdoptFailed(EngineError):
    """A foreign model cannot be taken into the repository."""
