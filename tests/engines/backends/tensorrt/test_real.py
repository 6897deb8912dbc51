"""Tests on the real TensorRT libraries: `make tensorrt`, then `.venv-tensorrt/bin/pytest -m tensorrt`.

Without a GPU, the tests show that the libraries are found, and that the absence of the GPU is reported before any
object is made. With a GPU, the contract tests of all engines run on it. These tests have not run on a GPU yet.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import backends
from engines.backends.tensorrt import TensorRtEngine, probe, unavailable_reason
from engines.backends.tensorrt.builder import BuildControl, make_logger, make_monitor
from engines.backends.tensorrt.plans import PlanCache
from engines.engine import Engine
from engines.repository.manifest import Model
from tests.contract.test_engine import EngineContract
from tests.engines.backends.tensorrt.test_conformity import FAKES, FILES, HELPERS
from tests.paths import MODELS, ROOT

pytestmark = pytest.mark.tensorrt
LOAD = f"""
from engines import backends
from engines.exceptions import ModelLoadFailed
from engines.repository.store import Repository
import pathlib
engine = backends.make("tensorrt")
try:
    engine.load(Repository(pathlib.Path({str(MODELS)!r})).open("regions"))
except ModelLoadFailed as error:
    print("refused:", error)
"""


@pytest.fixture
def trt() -> Any:
    if not any(map(probe.find_spec, probe.MODULES)):
        pytest.skip("TensorRT is not installed: run make tensorrt")
    return probe.load_tensorrt()


@pytest.fixture
def no_gpu() -> None:
    if not unavailable_reason():
        pytest.skip("this machine has a GPU")


def test_the_installed_tensorrt_library_is_found_and_has_a_supported_version(trt: Any) -> None:
    assert probe.library_reason() == ""
    assert trt.get_plugin_registry() is not None


def test_a_tensorrt_logger_and_progress_monitor_can_be_made_without_a_gpu(trt: Any) -> None:
    logger = make_logger(trt)
    logger.log(trt.ILogger.ERROR, "out of tactics")
    logger.log(trt.ILogger.INFO, "a hint")
    assert logger.recent() == "out of tactics"
    control = BuildControl()
    monitor = make_monitor(trt, control)
    monitor.phase_start("Building", "", 2)
    assert monitor.step_complete("Building", 0)
    control.cancel()
    assert not monitor.step_complete("Building", 1)


@pytest.mark.parametrize("cls", FAKES, ids=FAKES.values())
def test_the_real_tensorrt_classes_have_the_methods_of_the_fakes(cls: type, trt: Any) -> None:
    used = {name for name in vars(cls) if not name.startswith("_")} - HELPERS
    assert used <= set(dir(getattr(trt, FAKES[cls])))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_real_tensorrt_module_has_every_name_that_the_product_uses(file: Path, trt: Any) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("trt."):
            value = trt
            for part in ast.unparse(node).split(".")[1:]:
                value = getattr(value, part)


@pytest.mark.usefixtures("trt", "no_gpu")
def test_the_absence_of_a_gpu_is_reported_before_any_tensorrt_object_is_made() -> None:
    """TensorRT's objects would end the process or raise TypeError. The load is refused with the driver's reason."""
    done = subprocess.run([sys.executable, "-c", LOAD], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "refused: model regions@1: " in done.stdout
    assert "NVIDIA" in done.stdout or "cuInit" in done.stdout
    assert "CUDA initialization failure" not in done.stdout + done.stderr


@pytest.mark.usefixtures("trt")
def test_pycuda_needs_only_the_library_of_the_gpu_driver() -> None:
    pytest.importorskip("pycuda")
    done = subprocess.run([sys.executable, "-c", "import pycuda.driver"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or "libcuda.so.1: cannot open shared object file" in done.stderr


@pytest.mark.usefixtures("trt", "no_gpu")
def test_backend_auto_chooses_onnx_runtime_on_a_machine_without_a_gpu() -> None:
    choice = backends.choose_here("fp32")
    assert choice.backend == "onnxruntime"
    assert choice.passed_over["tensorrt"] == unavailable_reason()


class TestOnGpu(EngineContract):
    name = "tensorrt"

    @pytest.fixture
    def engine(self, model: Model, tmp_path: Path) -> Iterator[Engine]:
        if reason := unavailable_reason():
            pytest.skip(reason)
        engine = TensorRtEngine(plans=PlanCache(tmp_path))
        engine.load(model)
        yield engine
        engine.close()
