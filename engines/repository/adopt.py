"""Adoption of foreign ONNX models into the repository.

Sightline's models take ``(N, height, width, 3)`` uint8. A foreign model takes floats in another layout, so nodes for
cast, scale and transpose are put in front of it. The outputs of both are compared before anything is written.
"""

from __future__ import annotations

import copy
import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import tomli_w
from onnx import TensorProto, helper, numpy_helper

from engines import decoders
from engines.exceptions import AdoptFailed, DecoderUnknown
from engines.repository.manifest import MANIFEST, Model, sha256_of
from engines.repository.store import Repository

INPUT = "pixels"
_FILE = "model.onnx"
_TOLERANCE = 1e-3
"""Maximum output difference to the original model, relative to its largest output. The added nodes only round."""
_BATCH = "batch"
_MAX_BATCH = 8
_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,"
    "wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,"
    "chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,"
    "toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
COCO_LABELS = tuple(_COCO.split(","))
"""Names of the 80 COCO classes (Lin et al., 2014) in index order."""


@dataclass(frozen=True, slots=True)
class AdoptOptions:
    """Facts about a foreign model that its ONNX file does not hold. An input is ``(pixel - mean) * scale``."""

    name: str
    decoder: str
    labels: tuple[str, ...]
    colour: Literal["bgr", "rgb"] = "bgr"
    fit: Literal["stretch", "letterbox"] = "letterbox"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)


def adopt(file: Path, repository: Repository, options: AdoptOptions) -> Model:
    """Wrap a model, compare it with the original, and write it as the next version.

    Raise DecoderUnknown or AdoptFailed.
    """
    if options.decoder not in decoders.known():
        raise DecoderUnknown(options.decoder, decoders.known())
    original = _load(file)
    wrapped, height, width = _wrapped(original, options)
    batch = _MAX_BATCH
    free = _with_free_batch(wrapped)
    difference = _difference(original, free, height, width, options, rows=3)
    if difference is None or difference > _TOLERANCE:  # exported for a batch of one only
        free, batch = wrapped, 1
        difference = _difference(original, wrapped, height, width, options, rows=1)
    if difference is None or difference > _TOLERANCE:
        raise AdoptFailed(
            f"model file {file}: outputs with uint8 pixels differ from the original by {difference}: "
            f"expected at most {_TOLERANCE}"
        )
    manifest = {
        "name": options.name,
        "file": _FILE,
        "decoder": options.decoder,
        "labels": list(options.labels),
        "max_batch": batch,
        "input": {"name": INPUT, "width": width, "height": height, "colour": options.colour, "fit": options.fit},
        "origin": {
            "file": file.name,
            "sha256": sha256_of(file),
            "adopted": datetime.now(UTC).date().isoformat(),
            "largest_difference": difference,
        },
    }
    return _write(repository, options.name, free, manifest)


def _load(file: Path) -> Any:
    try:
        model = onnx.load(str(file))
        onnx.checker.check_model(model)
    except Exception as error:  # onnx and protobuf errors share no base class
        raise AdoptFailed(f"model file {file}: {error}: expected an ONNX model") from None
    return model


def _wrapped(original: Any, options: AdoptOptions) -> tuple[Any, int, int]:
    """Return the model with a uint8 input, and the height and width of that input."""
    inputs = [i for i in original.graph.input if i.name not in {x.name for x in original.graph.initializer}]
    shape = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if len(inputs) == 1 else []
    if len(shape) != 4 or shape[1] != 3 or not all(shape[2:]):
        raise AdoptFailed(
            f"model inputs {[i.name for i in inputs]} have shape {shape}: expected one of (N, 3, height, width)"
        )
    height, width = shape[2:]
    model = copy.deepcopy(original)
    graph, wanted = model.graph, inputs[0].name
    constants = {"sightline_mean": options.mean, "sightline_scale": options.scale}
    nodes = [helper.make_node("Cast", [INPUT], ["sightline_float"], to=TensorProto.FLOAT)]
    last = "sightline_float"
    for name, kind in (("sightline_mean", "Sub"), ("sightline_scale", "Mul")):
        if constants[name] not in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
            graph.initializer.append(numpy_helper.from_array(np.array(constants[name], np.float32), name))
            nodes.append(helper.make_node(kind, [last, name], [f"{name}_out"]))
            last = f"{name}_out"
    nodes.append(helper.make_node("Transpose", [last], [wanted], perm=[0, 3, 1, 2]))
    kept = list(graph.node)
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([*nodes, *kept])
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [shape[0] or 1, height, width, 3]))
    return model, height, width


def _with_free_batch(model: Any) -> Any:
    """Return the model with a free batch size in its declared shapes and in its reshapes."""
    freed = copy.deepcopy(model)
    for value in (*freed.graph.input, *freed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = _BATCH
    shapes = {node.input[1] for node in freed.graph.node if node.op_type == "Reshape"}
    for constant in freed.graph.initializer:
        values = numpy_helper.to_array(constant)
        if constant.name in shapes and values.ndim == 1 and values.size > 1 and values[0] == 1:
            kept = values.copy()
            kept[0] = 0  # ONNX Reshape: 0 copies the dimension of the input
            constant.CopyFrom(numpy_helper.from_array(kept, constant.name))
    return freed


def _difference(
    original: Any, wrapped: Any, height: int, width: int, options: AdoptOptions, rows: int
) -> float | None:
    """Return the largest relative output difference; None if a model cannot run.

    The original gets one image at a time, the wrapped model all of them in one batch.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (rows, height, width, 3), np.uint8)
    try:
        found = _run(wrapped, pixels)
        floats = (pixels.astype(np.float32) - options.mean) * options.scale
        planes = np.ascontiguousarray(floats.transpose(0, 3, 1, 2), np.float32)
        expected = [_run(original, planes[i : i + 1]) for i in range(rows)]
    except Exception:  # ONNX Runtime's exceptions share no base class
        return None
    wanted = np.concatenate(expected)
    if wanted.shape != found.shape:
        return None
    return float(np.abs(wanted - found).max() / max(1.0, float(np.abs(wanted).max())))


def _run(model: Any, images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images})[0])


def _write(repository: Repository, name: str, model: Any, manifest: dict[str, Any]) -> Model:
    version = max(repository.versions(name), default=0) + 1
    folder = repository.root / name / str(version)
    part = repository.root / name / f".{version}.{os.getpid()}.part"
    part.mkdir(parents=True)
    try:
        onnx.save(model, str(part / _FILE))
        complete = {**manifest, "version": version, "sha256": sha256_of(part / _FILE)}
        (part / MANIFEST).write_text(tomli_w.dumps(complete))
        part.rename(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise AdoptFailed(f"{folder}: {error.strerror}: expected a writable folder") from None
    return repository.open(name, version)
