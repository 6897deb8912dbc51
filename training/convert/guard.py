"""Convert a Keras file or a TensorFlow SavedModel to ONNX in a child process with limited memory and processor
time."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from pydantic import BaseModel

from engines.exceptions import AdoptFailed
from engines.repository.bounded import BoundedRequest, ChildTask, ask_child
from engines.repository.manifest import sha256_of
from engines.repository.report import ConvertedFrom

_NEEDED = ("keras", "tensorflow", "tf2onnx")
_GIB = 2**30
_BASE_BYTES = 24 * _GIB
"""Address space of the child process in addition to the copies of the model, in bytes. TensorFlow reserves far more
addresses than it uses memory."""
_COPIES = 20


class ConversionRequest(BoundedRequest):
    """Task of the child process: convert ``file``, and write the ONNX file ``target``.

    ``size`` is the width and height in px of the pictures with which the two models are compared, if the model
    accepts pictures of any size.
    """

    target: Path
    size: tuple[int, int] | None


class ConversionAnswer(BaseModel):
    """Answer of the child process: the converter with its version, and the largest difference between the outputs of
    both models."""

    converter: str
    largest_difference: float


def is_convertible(file: Path) -> bool:
    """Return whether a path is a Keras file, or a folder with a TensorFlow SavedModel."""
    return (file.suffix == ".keras" and file.is_file()) or (file / "saved_model.pb").is_file()


def convert(file: Path, folder: Path, size: tuple[int, int] | None, cpu_s: int) -> tuple[Path, ConvertedFrom]:
    """Convert a model to an ONNX file in ``folder``, and return this file and the record of the conversion.

    Raise AdoptFailed if the extra ``train`` is missing, if the model cannot be converted, or if the ONNX model gives
    other outputs.
    """
    require_train_extra(f"model file {file}")
    target = folder / "converted.onnx"
    memory = _BASE_BYTES + _COPIES * sum(p.stat().st_size for p in _files(file))
    request = ConversionRequest(file=file, target=target, size=size, cpu_s=cpu_s, memory_bytes=memory)
    task = ChildTask("training.convert.child", "conversion", "a Keras file or a TensorFlow SavedModel")
    answer = ask_child(task, request, ConversionAnswer)
    return target, ConvertedFrom(
        file=file,
        sha256=sha256_of_all(file),
        converter=answer.converter,
        largest_difference=answer.largest_difference,
        kept=file.suffix == ".keras",
    )


def require_train_extra(subject: str) -> None:
    """Raise AdoptFailed if Keras, TensorFlow or tf2onnx is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise AdoptFailed(
            f"{subject}: the Python modules {', '.join(missing)} are missing. "
            "Install the extra train: pip install 'sightline[train]'"
        )


def sha256_of_all(file: Path) -> str:
    """Return the SHA-256 of a file; for a folder, the SHA-256 of the names and hashes of its files."""
    if file.is_file():
        return sha256_of(file)
    digest = hashlib.sha256()
    for path in _files(file):
        digest.update(f"{path.relative_to(file).as_posix()} {sha256_of_all(path)}\n".encode())
    return digest.hexdigest()


def _files(file: Path) -> list[Path]:
    return [file] if file.is_file() else sorted(path for path in file.rglob("*") if path.is_file())
