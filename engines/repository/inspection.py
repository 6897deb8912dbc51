"""Check an ONNX file from an untrusted source, and describe the file's inputs and outputs.

The checks refuse files that would make a parser open other files or take too much memory. The checks run in a child
process with limited memory and time (``engines.repository.guard``), because the parser itself may fail.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import onnx
from onnx import TensorProto, external_data_helper, helper
from pydantic import BaseModel, ConfigDict

from engines.exceptions import AdoptFailed
from engines.repository.manifest import sha256_of
from engines.repository.wrap import graphs_of, inputs_of

MAX_BYTES = 2**31 - 1
"""Maximum size of a model with its weights: an ONNX file is a protobuf message, which holds at most 2 GiB."""
MIN_OPSET = 7
"""Oldest ONNX operator set version (opset) whose operators ONNX Runtime computes as specified."""
_STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_SCALING = frozenset({"Add", "BatchNormalization", "Div", "Mul", "Sub"})
_NEUTRAL = frozenset({"Cast", "Identity", "Transpose"})
"""ONNX operators that may come between an input and the operators that normalise the input."""
_MAX_METADATA_CHARACTERS = 100_000
"""Maximum length of one metadata entry in characters. The names of 1,000 classes take 30,000 characters."""


class TensorInfo(BaseModel):
    """An input or output of a model. A dimension in ``shape`` that is None may have any size.

    ``low`` and ``high`` are the range of an output's values on images of noise, if the model was run.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    low: float | None = None
    high: float | None = None


class FileFacts(BaseModel):
    """Facts that an ONNX file states about itself."""

    model_config = ConfigDict(frozen=True)

    size_bytes: int
    producer: str
    opset: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    metadata: dict[str, str] = {}


class CheckedFile(NamedTuple):
    """A model file that was read and checked: its path, the valid ONNX model in the file, and the file's SHA-256."""

    path: Path
    model: Any
    sha256: str


def read_checked(file: Path) -> CheckedFile:
    """Read and hash a model file. Raise AdoptFailed for a file that is not a valid ONNX model."""
    return CheckedFile(file, load_checked(file), sha256_of(file))


def load_checked(file: Path) -> Any:
    """Return the model of a file, with its weights. Raise AdoptFailed for a file that is not a valid ONNX model."""
    require_model_file(file)
    try:
        model = onnx.load_model(str(file), load_external_data=False)
    except Exception as error:  # onnx and protobuf errors share no base class
        raise _refused(
            file, f"{error}: expected an ONNX model. The file may be of another kind, or truncated"
        ) from None
    if not model.graph.node:
        raise _refused(
            file, "the file has no graph: expected an ONNX model. The file may be of another kind, or truncated"
        )
    _require_operators(file, model)
    _require_bounded_weights(file, model)
    try:
        external_data_helper.load_external_data_for_model(model, str(file.absolute().parent))
        onnx.checker.check_model(model)
    except Exception as error:
        raise _refused(file, f"{str(error).strip()}: expected an ONNX model. Export it again") from None
    return model


def require_model_file(file: Path) -> None:
    """Raise AdoptFailed unless the path is a regular file of at most ``MAX_BYTES``."""
    try:
        found = file.stat()
    except OSError as error:
        raise _refused(file, f"{error.strerror}: expected a readable ONNX file") from None
    if not stat.S_ISREG(found.st_mode):
        raise _refused(
            file, "the path is not a regular file: expected an ONNX file, a .keras file, or a SavedModel folder"
        )
    if not 0 < found.st_size <= MAX_BYTES:
        raise _refused(file, f"the file has {found.st_size} bytes: expected an ONNX file of 1 to {MAX_BYTES} bytes")


def facts_of(file: Path, model: Any) -> FileFacts:
    """Return the facts that the file of a loaded model states about itself."""
    return FileFacts(
        size_bytes=file.stat().st_size,
        producer=f"{model.producer_name} {model.producer_version}".strip(),
        opset=opset_of(model),
        inputs=tuple(_info(value) for value in inputs_of(model)),
        outputs=tuple(_info(value) for value in model.graph.output),
        metadata={entry.key: entry.value[:_MAX_METADATA_CHARACTERS] for entry in model.metadata_props},
    )


def opset_of(model: Any) -> int:
    """Return the model's version of the standard operator set, or 0 if the model declares no version."""
    return max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)


def scales_itself(model: Any) -> bool:
    """Return whether the first operators of a graph shift or scale the input by constants."""
    name = inputs_of(model)[0].name
    constants = {weight.name for weight in model.graph.initializer}
    constants |= {node.output[0] for node in model.graph.node if node.op_type == "Constant"}
    for node in model.graph.node:  # in topological order
        if name not in node.input:
            continue
        if node.op_type not in _NEUTRAL:
            return node.op_type in _SCALING and constants.issuperset(set(node.input) - {name, ""})
        name = node.output[0]
    return False


def _info(value: Any) -> TensorInfo:
    tensor = value.type.tensor_type
    dims = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
    return TensorInfo(name=value.name, dtype=TensorProto.DataType.Name(tensor.elem_type).lower(), shape=dims)


def _require_operators(file: Path, model: Any) -> None:
    newest, found = onnx.defs.onnx_opset_version(), opset_of(model)
    if not MIN_OPSET <= found <= newest:
        raise _refused(
            file, f"the model has opset {found}: expected {MIN_OPSET} to {newest}. Export the model with opset 17"
        )
    for graph in graphs_of(model):
        for node in graph.node:
            if node.domain not in _STANDARD_DOMAINS and not model.functions:
                raise _refused(
                    file,
                    f"operator {node.op_type} of domain {node.domain}: expected standard operators. Export the "
                    "model without the operators of another library",
                )


def _require_bounded_weights(file: Path, model: Any) -> None:
    folder, total = file.absolute().parent, 0
    for tensor in _weights(model):
        if any(d < 0 for d in tensor.dims):
            raise _refused(file, f"weights {tensor.name} have shape {list(tensor.dims)}: expected no negative size")
        total += math.prod(tensor.dims) * _item_bytes(file, tensor)
        if total > MAX_BYTES:
            raise _refused(
                file,
                f"weights up to {tensor.name} {list(tensor.dims)} take {total} bytes: expected at most {MAX_BYTES}",
            )
        if tensor.data_location == TensorProto.EXTERNAL:
            location = next((e.value for e in tensor.external_data if e.key == "location"), "")
            _require_inside(file, tensor.name, folder, location)


def _require_inside(file: Path, name: str, folder: Path, location: str) -> None:
    path = folder / location
    outside = not location or not path.resolve().is_relative_to(folder.resolve()) or path.is_symlink()
    if outside:
        raise _refused(
            file, f"weights {name} are in {location!r}: expected a file in the model's folder that is no link"
        )
    if not path.is_file():
        raise _refused(
            file, f"weights {name} are in {location!r}, which does not exist: copy that file beside the model"
        )


def _item_bytes(file: Path, tensor: Any) -> int:
    if tensor.data_type == TensorProto.STRING:
        return 1
    try:
        return max(1, int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize))
    except KeyError:
        raise _refused(
            file, f"weights {tensor.name} have type {tensor.data_type}: expected a tensor type of ONNX"
        ) from None


def _weights(model: Any) -> Iterator[Any]:
    for graph in graphs_of(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            for attribute in node.attribute:
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t


def _refused(file: Path, reason: str) -> AdoptFailed:
    return AdoptFailed(f"model file {file}: {reason}")
