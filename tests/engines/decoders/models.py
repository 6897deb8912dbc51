"""ONNX models of any output layout, for tests, and the detections of a stored model in a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines import backends, decoders
from engines.decoders import DecoderOptions, FrameRegion
from engines.repository.manifest import Model
from ingest.contract.records import Box, Detection, Fit, Inner, Region


def detections(model: Model, picture: np.ndarray, min_score: float = 0.3) -> list[Detection]:
    """Run a model on a picture that is stretched to the model's input size, and return the detections."""
    spec = model.manifest.input
    (height, width), inner = picture.shape[:2], Inner(0, 0, spec.width, spec.height)
    fit = Fit(spec.width / width, spec.height / height, 0.0, 0.0)
    image = cv2.resize(picture, (spec.width, spec.height))
    if spec.colour == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    decoder = decoders.make(model.manifest.decoder, DecoderOptions.of(model.manifest, min_score))
    engine = backends.make("onnxruntime")
    engine.load(model)
    outputs = engine.infer(np.asarray(image, np.uint8)[None])
    engine.close()
    return decoder.decode(outputs, [FrameRegion(Region(Box(0, 0, width, height), fit, inner), width, height)])[0]


def constant_model(path: Path, outputs: Mapping[str, np.ndarray], size: int = 64) -> Path:
    """Write a model of NCHW images of any batch size. The model returns the arrays ``outputs`` for every image."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    weights = [numpy_helper.from_array(np.zeros(1, np.float32), "zero")]
    declared = []
    for name, values in outputs.items():
        column = np.array([-1, *(1 for _ in values.shape)], np.int64)
        weights += [
            numpy_helper.from_array(column, f"{name}_column"),
            numpy_helper.from_array(values[None].astype(np.float32), f"{name}_table"),
        ]
        nodes += [
            helper.make_node("Reshape", ["nothing", f"{name}_column"], [f"{name}_nothing"]),
            helper.make_node("Add", [f"{name}_nothing", f"{name}_table"], [name]),
        ]
        declared.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ("N", *values.shape)))
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", 3, size, size))
    graph = helper.make_graph(nodes, "constant", [images], declared, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path
