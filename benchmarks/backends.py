"""Benchmark of the CPU backends: time per image of ONNX Runtime and OpenVINO in several precisions.

``python -m benchmarks.backends --keep`` runs YOLOX-nano of ``shared/data``, the shipped model ``regions``, and a
ResNet-18 with random weights for 224×224 pictures. Each model runs through the ``Engine`` of each backend with one
worker on one core, on random pictures.

Fairness: each candidate is a combination of a backend and a precision. All candidates of a model are loaded before
the first measurement. Each round runs every candidate for the same number of batches, in an order that rotates from
round to round. Loading and the first two batches are not timed.

Noise: ONNX Runtime in fp32 is measured twice; ``noise`` is the second measurement divided by the first. A speedup
means nothing unless it is further from 1 than ``noise``. The report has the wall-clock time and the CPU time of the
process; other processes disturb the CPU time less. For wall-clock time and CPU time, the report has the minimum and
the median over all batches. ``speedup`` divides the smallest CPU time of ONNX Runtime in fp32 by the smallest CPU
time of the candidate.

Quantisation: each backend gets the int8 format that it computes fastest: unsigned activations for ONNX Runtime,
signed activations for OpenVINO. The int8 models are calibrated with random pictures. The speed of the int8 models is
representative, but their outputs are inaccurate and are not compared. For fp32, bf16 and fp16, ``largest_difference``
is the largest difference of an output, divided by the largest output of ONNX Runtime in fp32. The ResNet-18 has no
``largest_difference``: its random weights saturate the softmax.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from onnx import TensorProto, helper, numpy_helper

from benchmarks.report import DATA, ROOT, KeepIt, conclude, log_progress
from engines import backends
from engines.engine import Engine, Images
from engines.optimise import int8
from engines.optimise.int8 import Form
from engines.repository.adopt import COCO_LABELS, AdoptOptions, adopt
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.site.pipeline import Precision

BASE, AGAIN = "onnxruntime fp32", "onnxruntime fp32 again"
CANDIDATES: Mapping[str, tuple[str, Precision]] = {
    BASE: ("onnxruntime", "fp32"),
    AGAIN: ("onnxruntime", "fp32"),
    "openvino fp32": ("openvino", "fp32"),
    "openvino bf16": ("openvino", "bf16"),
    "openvino fp16": ("openvino", "fp16"),
}
INT8: Mapping[str, tuple[str, Form]] = {
    "onnxruntime int8": ("onnxruntime", "u8s8"),
    "openvino int8": ("openvino", "s8s8"),
}
"""Backend and form of int8, by name of the int8 candidate."""
RANDOM = "resnet-18"
"""Name of the model with random weights."""
BATCHES_PER_TURN = 3
_CALIBRATION_IMAGES = 4
_BLOCKS = (64, 128, 256, 512)
"""Channels of the four stages of ResNet-18 (He et al., 2015)."""


def main(rounds: Annotated[int, typer.Option(help="Turns of each candidate.")] = 20, keep_it: KeepIt = False) -> None:
    """Measure every model with every candidate (backend and precision), and print the report."""
    figures: dict[str, Any] = {"rounds": rounds, "batches_per_turn": BATCHES_PER_TURN}
    with tempfile.TemporaryDirectory() as folder:
        for model, sizes in models(Path(folder)):
            engines = load(model, Path(folder))
            for size in sizes:
                name = f"{model.manifest.name}, batch {size}"
                log_progress(name)
                figures[name] = measure(engines, model, size, rounds)
            for engine in engines.values():
                engine.close()
    conclude("backends", figures, [], keep_it=keep_it)


def models(folder: Path) -> Iterator[tuple[Model, tuple[int, ...]]]:
    """Return the models with the batch sizes to measure."""
    repository = Repository(folder / "models")
    yield Repository(ROOT / "engines" / "models").open("regions"), (1, 16)
    if (file := DATA / "yolox-nano.onnx").exists():
        yield adopt(file, repository, AdoptOptions("yolox-nano", "yolox", COCO_LABELS)), (1, 4)
    onnx.save(resnet18(), folder / "resnet18.onnx")
    labels = tuple(f"class {number}" for number in range(10))
    options = AdoptOptions(RANDOM, "softmax", labels, scale=(1 / 64, 1 / 64, 1 / 64))
    yield adopt(folder / "resnet18.onnx", repository, options), (1, 4)


def load(model: Model, folder: Path) -> dict[str, Engine]:
    """Return a loaded engine for every candidate."""
    engines = {}
    for name, (backend, precision) in CANDIDATES.items():
        engines[name] = backends.make(backend)
        engines[name].load(model.at_precision(precision))
    for name, (backend, form) in INT8.items():
        engines[name] = backends.make(backend)
        engines[name].load(quantised(model, folder, form).at_precision("int8"))
    return engines


def measure(engines: Mapping[str, Engine], model: Model, size: int, rounds: int) -> dict[str, Any]:
    """Return the figures of every candidate for batches of ``size`` images."""
    spec = model.manifest.input
    images = _random_images(size, spec.height, spec.width)
    wall_ms: dict[str, list[float]] = {name: [] for name in engines}
    cpu_ms: dict[str, list[float]] = {name: [] for name in engines}
    names = list(engines)
    for engine in engines.values():
        for _ in range(2):
            _timed(engine, images)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            for _ in range(BATCHES_PER_TURN):
                wall_s, cpu_s = _timed(engines[name], images)
                wall_ms[name].append(wall_s * 1000 / size)
                cpu_ms[name].append(cpu_s * 1000 / size)
    expected = {name: array.copy() for name, array in engines[BASE].infer(images).items()}
    report: dict[str, Any] = {}
    for name in names:
        report[name] = {
            "cpu_ms": {"min": round(min(cpu_ms[name]), 3), "median": round(median(cpu_ms[name]), 3)},
            "wall_ms": {"min": round(min(wall_ms[name]), 3), "median": round(median(wall_ms[name]), 3)},
            "speedup": round(min(cpu_ms[BASE]) / min(cpu_ms[name]), 2),
        }
        if name not in INT8 and model.manifest.name != RANDOM:
            found = engines[name].infer(images)
            worst = max(
                float(np.abs(found[key] - array).max() / np.abs(array).max()) for key, array in expected.items()
            )
            report[name]["largest_difference"] = float(f"{worst:.1e}")
    report["noise"] = {
        "cpu_min": round(min(cpu_ms[AGAIN]) / min(cpu_ms[BASE]), 3),
        "cpu_median": round(median(cpu_ms[AGAIN]) / median(cpu_ms[BASE]), 3),
        "wall_median": round(median(wall_ms[AGAIN]) / median(wall_ms[BASE]), 3),
    }
    return report


def _timed(engine: Engine, images: Images) -> tuple[float, float]:
    """Return wall-clock time and CPU time of a batch in seconds."""
    with engine.slot() as slot:
        slot.pixels[: len(images)] = images
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        engine.run(slot, len(images))
        return time.perf_counter() - started_s, time.process_time() - started_cpu_s


def quantised(model: Model, folder: Path, form: Form) -> Model:
    """Return a model in int8, as `sightline models optimise` makes it, calibrated with random pictures."""
    spec, target = model.manifest.input, folder / form / model.manifest.name
    target.mkdir(parents=True)
    pictures = (_random_images(1, spec.height, spec.width, seed) for seed in range(_CALIBRATION_IMAGES))
    onnx.save(int8.quantised(onnx.load(str(model.path)), form, pictures), str(target / model.manifest.file))
    return Model(model.manifest, target)


def resnet18() -> onnx.ModelProto:
    """Return a ResNet-18 with random weights and ten classes, for ``(N, 3, 224, 224)`` floats."""
    random = np.random.default_rng(18)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def add(operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator}{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def tensor(*shape: int) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.01
        name = f"weight{len(weights)}"
        weights.append(numpy_helper.from_array((random.standard_normal(shape) * scale).astype(np.float32), name))
        return name

    def conv(source: str, before: int, after: int, size: int, stride: int) -> str:
        inputs = [source, tensor(after, before, size, size), tensor(after)]
        return add("Conv", inputs, strides=[stride] * 2, pads=[size // 2] * 4)

    top = add("Relu", [conv("picture", 3, 64, 7, 2)])
    top = add("MaxPool", [top], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    before = _BLOCKS[0]
    for after in _BLOCKS:
        for stride in (2 if after > before else 1, 1):
            inner = add("Relu", [conv(top, before, after, 3, stride)])
            inner = conv(inner, after, after, 3, 1)
            skip = conv(top, before, after, 1, stride) if before != after else top
            top, before = add("Relu", [add("Add", [inner, skip])]), after
    top = add("Gemm", [add("Flatten", [add("GlobalAveragePool", [top])]), tensor(10, before), tensor(10)], transB=1)
    out = add("Softmax", [top], axis=1)
    inputs = [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, 224, 224])]
    outputs = [helper.make_tensor_value_info(out, TensorProto.FLOAT, ["n", 10])]
    graph = helper.make_graph(nodes, "resnet18", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def _random_images(count: int, height: int, width: int, seed: int = 0) -> Images:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


if __name__ == "__main__":
    typer.run(main)
