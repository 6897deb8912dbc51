"""Convert Keras models and TensorFlow SavedModels to ONNX with tf2onnx, and compare the outputs.

A SavedModel is a program: its operators may read and write files. A SavedModel with a dangerous operator is
refused before it is loaded. Keras files with Python code inside are refused by Keras itself (``safe_mode``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engines import decoders
from engines.exceptions import AdoptFailed
from engines.noise import largest_difference
from training.convert.guard import ConversionAnswer

_OPSET = 17
"""Version of the ONNX operator set to write: the newest version that tf2onnx writes and TensorRT 10 reads
completely."""
_TOLERANCE = 1e-3
"""Maximum difference between the outputs of both models, relative to the largest output. A Keras model and its ONNX
copy add numbers in different orders, so their rounding errors differ."""
_USUAL_SIZE = (224, 224)
_PROBES = 2
_SIGNATURE = "serving_default"
_DANGEROUS = frozenset(
    {
        *("EagerPyFunc", "PyFunc", "PyFuncStateless", "ReadFile", "WriteFile", "MatchingFiles", "WholeFileReaderV2"),
        *("FixedLengthRecordReaderV2", "TextLineReaderV2", "TFRecordReaderV2", "IdentityReaderV2", "DebugIdentityV2"),
        *("SaveSlices", "Save", "RpcCall", "RpcClient", "SendTPUEmbeddingGradients", "TensorSummaryV2"),
    }
)
"""Operators of TensorFlow that run Python code, read or write files, or use the network."""

Function = Callable[[npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]


def converted(file: Path, target: Path, size: tuple[int, int] | None) -> ConversionAnswer:
    """Convert a Keras file or a SavedModel, and compare both models on noise. Raise AdoptFailed."""
    try:
        function, spec = _of_keras(file) if file.is_file() else _of_saved_model(file)
    except AdoptFailed:
        raise
    except Exception as error:  # Keras and TensorFlow raise errors of many kinds
        raise AdoptFailed(f"model file {file}: {_first_line(error)}: expected a model that Keras can load") from None
    converter = write_onnx(file, function, spec, target)
    width, height = size or _USUAL_SIZE
    shape = (_PROBES if spec.shape[0] is None else spec.shape[0], spec.shape[1] or height, spec.shape[2] or width, 3)
    difference = _difference(file, function, target, shape, spec.dtype.as_numpy_dtype)
    if not difference <= _TOLERANCE:
        raise AdoptFailed(
            f"model file {file}: outputs of the ONNX model differ from the original by {difference:.2g}: expected at "
            f"most {_TOLERANCE}. Export the model to ONNX yourself, and add that file"
        )
    return ConversionAnswer(converter=converter, largest_difference=difference)


def write_onnx(file: Path, function: Any, spec: Any, target: Path) -> str:
    """Write a TensorFlow function as an ONNX file, and return the name and version of the converter.

    Error messages name the model by ``file``. Raise AdoptFailed.
    """
    import tf2onnx

    try:
        proto, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=_OPSET)
    except Exception as error:  # tf2onnx raises errors of many kinds
        raise AdoptFailed(
            f"model file {file}: tf2onnx cannot convert it: {_first_line(error)}: expected operators that ONNX has"
        ) from None
    unknown = sorted({node.op_type for node in proto.graph.node if node.domain not in ("", "ai.onnx")})
    if unknown:
        raise AdoptFailed(
            f"model file {file}: ONNX has no operators for {', '.join(unknown)}: expected standard operators"
        )
    target.write_bytes(proto.SerializeToString())
    return f"tf2onnx {tf2onnx.__version__}"


def keras_function(model: Any) -> tuple[Any, Any]:
    """Return a function of TensorFlow that computes a Keras model, and the specification of its input."""
    import tensorflow as tf

    (given,) = model.inputs
    spec = tf.TensorSpec((None, *given.shape[1:]), given.dtype, name="images")
    names = _output_names(model)

    def compute(images: Any) -> dict[str, Any]:
        results = model(images, training=False)
        flat = list(results.values()) if isinstance(results, dict) else results
        flat = flat if isinstance(flat, list | tuple) else [flat]
        return dict(zip(names, flat, strict=True))

    return tf.function(compute, input_signature=[spec]), spec


def _output_names(model: Any) -> list[str]:
    names = list(getattr(model, "output_names", []))
    if len(set(names)) != len(model.outputs):
        names = [f"output_{index}" for index in range(len(model.outputs))]
    return [name.replace("/", "_") for name in names]


def _of_keras(file: Path) -> tuple[Any, Any]:
    import keras

    model = keras.saving.load_model(str(file), compile=False, safe_mode=True)
    _require_one_input(file, [tuple(given.shape) for given in getattr(model, "inputs", None) or []])
    return keras_function(model)


def _of_saved_model(folder: Path) -> tuple[Any, Any]:
    import tensorflow as tf

    _require_harmless(folder)
    loaded = tf.saved_model.load(str(folder))
    if _SIGNATURE not in loaded.signatures:
        raise AdoptFailed(
            f"model file {folder}: signatures are {sorted(loaded.signatures)}: expected {_SIGNATURE}. Export the "
            "model with `model.export(FOLDER)`"
        )
    signature = loaded.signatures[_SIGNATURE]
    given = signature.structured_input_signature[1]
    _require_one_input(folder, [tuple(spec.shape) for spec in given.values()])
    ((name, spec),) = given.items()
    spec = tf.TensorSpec(spec.shape, spec.dtype, name="images")

    def compute(images: Any) -> Any:  # refers to ``loaded``, which owns the variables
        return loaded.signatures[_SIGNATURE](**{name: images})

    return tf.function(compute, input_signature=[spec]), spec


def _require_one_input(file: Path, shapes: list[tuple[int | None, ...]]) -> None:
    """Raise AdoptFailed unless a model has one input of colour pictures."""
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][3] != 3:
        raise AdoptFailed(
            f"model file {file}: inputs have shapes {shapes}: expected one input of colour pictures, "
            "(N, height, width, 3)"
        )


def _require_harmless(folder: Path) -> None:
    """Raise AdoptFailed for a SavedModel whose operators run code, or read or write files."""
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((folder / "saved_model.pb").read_bytes())
    except Exception as error:  # an error of protobuf
        raise AdoptFailed(f"model file {folder}: {_first_line(error)}: expected a TensorFlow SavedModel") from None
    found = sorted({node.op for graph in saved.meta_graphs for node in _nodes(graph)} & _DANGEROUS)
    if found:
        raise AdoptFailed(
            f"model file {folder}: operators {', '.join(found)} run code or use files: expected safe operators"
        )


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.graph_def.node
    for function in graph.graph_def.library.function:
        yield from function.node_def


def _difference(
    file: Path, function: Function, target: Path, shape: tuple[int, ...], dtype: type[np.generic]
) -> float:
    """Return the largest relative difference of any output. Both models get noise images with values of 0 to 255 and
    of -1 to 1; integer inputs get only values of 0 to 255."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    random = np.random.default_rng(0)
    pairs = []
    for low, high in ((0, 256), (-1, 1)) if np.issubdtype(dtype, np.floating) else ((0, 256),):
        images = random.uniform(low, high, shape).astype(dtype)
        expected = {name: np.asarray(values) for name, values in function(images).items()}
        found = dict(zip(names, session.run(names, {session.get_inputs()[0].name: images}), strict=True))
        if len(found) != len(expected):
            raise AdoptFailed(f"model file {file}: ONNX outputs are {names}: expected {sorted(expected)}")
        for name in _comparable(names, expected):
            wanted, values = expected[name], np.asarray(found[name])
            if wanted.shape != values.shape:
                raise AdoptFailed(
                    f"model file {file}: output {name} has shape {values.shape}: expected {wanted.shape}"
                )
            pairs.append((wanted, values))
    return largest_difference(pairs)


def _comparable(names: list[str], expected: Mapping[str, Any]) -> list[str]:
    """Return the outputs to compare.

    Non-maximum suppression may order boxes of nearly equal scores in another way. For a detector that contains
    non-maximum suppression, the sorted scores and the outputs before the suppression are compared.
    """
    known = [name for name in names if name in expected]
    if not decoders.tensorflow_outputs(known):
        return known
    return [name for name in known if name.startswith("raw_") or name == "detection_scores"]


def _first_line(error: Exception) -> str:
    """Return the line of an error's message that names the cause: the last line if TensorFlow quotes lines of the
    model's source code first, else the first line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("in user code"):
        return lines[-1]
    return lines[0] if lines else type(error).__name__
