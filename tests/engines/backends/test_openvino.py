"""Tests of the OpenVINO backend: accuracy of each precision, failed batches, and the absence of telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from engines import backends
from engines.backends import openvino
from engines.backends.hardware import Cpu
from engines.backends.openvino import OpenVinoEngine, OpenVinoSlot
from engines.engine import Outputs
from engines.exceptions import InferenceFailed
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.site.pipeline import Precision
from tests.paths import MODELS, ROOT

IMAGES = np.random.default_rng(1).integers(0, 256, (40, 64, 64, 3), np.uint8)


@pytest.fixture
def model() -> Model:
    return Repository(MODELS).open("regions")


def outputs(backend: str, model: Model) -> Outputs:
    engine = backends.make(backend)
    engine.load(model)
    try:
        return engine.infer(IMAGES)
    finally:
        engine.close()


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 1e-5), ("int8", 0.05), ("fp16", 0.01), ("bf16", 0.05)])
def test_outputs_of_openvino_and_onnx_runtime_agree_within_the_tolerance_of_the_precision(
    model: Model, precision: Precision, bound: float
) -> None:
    expected = outputs("onnxruntime", model)["probabilities"]
    found = outputs("openvino", model.at_precision(precision))["probabilities"]
    np.testing.assert_allclose(found, expected, atol=bound)


@pytest.mark.parametrize(
    ("precision", "flags", "expected"),
    [("fp32", "avx512_bf16", "f32"), ("int8", "avx512_vnni", "f32"), ("int8", "avx512_bf16", "bf16")],
)
def test_float_layers_of_int8_models_are_computed_in_bf16_only_if_the_processor_is_fast_in_it(
    model: Model, precision: Precision, flags: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "processor", lambda: Cpu("", "AuthenticAMD", frozenset([flags])))
    engine = OpenVinoEngine()
    engine.load(model.at_precision(precision))
    supported = openvino._core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert engine.inference_precision == (expected if "BF16" in supported else "f32")
    engine.close()


def test_openvino_uses_fixed_input_shapes_only_for_batches_of_one_and_four_images(model: Model) -> None:
    engine = OpenVinoEngine()
    engine.load(model)
    expected = engine.infer(IMAGES[:5])["probabilities"]
    for rows, is_fixed in ((1, True), (2, False), (4, True), (5, False), (1, True)):
        with engine.slot() as slot:
            assert isinstance(slot, OpenVinoSlot)
            slot.pixels[:rows] = IMAGES[:rows]
            found = engine.run(slot, rows)["probabilities"]
            np.testing.assert_allclose(found, expected[:rows], atol=1e-5)
            assert slot.request.model_inputs[0].partial_shape.is_static == is_fixed
    engine.close()


def test_an_openvino_batch_that_cannot_start_fails_without_affecting_other_batches(model: Model) -> None:
    engine = OpenVinoEngine()
    engine.load(model)
    with engine.slot() as slot:
        pixels, slot.pixels = slot.pixels, np.zeros((2, 32, 64, 3), np.uint8)
        engine.submit(slot, 2)
        with pytest.raises(InferenceFailed):
            engine.collect(slot)
        slot.pixels = pixels
    for _ in range(engine.slot_count):
        assert len(engine.infer(IMAGES[:2])["probabilities"]) == 2
    engine.close()


def test_the_openvino_backend_neither_loads_telemetry_nor_writes_to_the_home_folder(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from engines import backends; from engines.repository.store import Repository;"
        f"engine = backends.make('openvino'); engine.load(Repository(pathlib.Path({str(MODELS)!r})).open('regions'));"
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry.')], sys.modules"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=90, check=True)
    assert not list(tmp_path.iterdir())
