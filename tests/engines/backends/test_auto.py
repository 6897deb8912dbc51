"""Tests of the automatic choice of a backend, the probes of the hardware, CUDA errors, and the engine doctor."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from engines import backends, doctor
from engines.backends import hardware
from engines.backends.auto import AUTO_ORDER, choose
from engines.backends.hardware import Cpu, Gpu, cuda, processor
from engines.backends.onnxruntimecuda import device_error
from engines.exceptions import DeviceLost, EngineError, InferenceFailed
from engines.repository.store import Repository
from ingest.site.pipeline import Precision
from tests.paths import MODELS

GRANITE_RAPIDS = Cpu(
    "Xeon 6980P", "GenuineIntel", frozenset({"avx512_vnni", "avx512_bf16", "amx_bf16", "amx_fp16", "amx_int8"})
)
WITHOUT_AMX = Cpu("Xeon", "GenuineIntel", frozenset({"avx512_vnni", "avx512_bf16", "avx512_fp16"}))
ZEN_4 = Cpu("EPYC 9354P", "AuthenticAMD", frozenset({"avx512_vnni", "avx512_bf16"}))
HASWELL = Cpu("Xeon E5", "GenuineIntel", frozenset({"avx2"}))


def only(*usable: str) -> Any:
    return lambda name: "" if name in usable else f"no {name} here"


class TestChoose:
    @pytest.mark.parametrize(
        ("precision", "processor", "usable", "chosen"),
        [
            ("fp32", ZEN_4, AUTO_ORDER, "tensorrt"),
            ("fp32", ZEN_4, AUTO_ORDER[1:], "onnxruntime-cuda"),
            ("fp32", ZEN_4, AUTO_ORDER[2:], "onnxruntime"),
            ("bf16", ZEN_4, AUTO_ORDER[2:], "openvino"),
            ("bf16", GRANITE_RAPIDS, AUTO_ORDER[2:], "openvino"),
            ("bf16", WITHOUT_AMX, AUTO_ORDER[2:], "onnxruntime"),
            ("fp16", GRANITE_RAPIDS, AUTO_ORDER[2:], "openvino"),
            ("fp16", WITHOUT_AMX, AUTO_ORDER[2:], "onnxruntime"),
            ("int8", WITHOUT_AMX, AUTO_ORDER[2:], "openvino"),
            ("int8", WITHOUT_AMX, AUTO_ORDER[3:], "onnxruntime"),
            ("int8", HASWELL, AUTO_ORDER[2:], "onnxruntime"),
        ],
    )
    def test_backend_auto_chooses_the_fastest_usable_backend_for_the_precision(
        self, precision: Precision, processor: Cpu, usable: tuple[str, ...], chosen: str
    ) -> None:
        assert choose(precision, processor, only(*usable)).backend == chosen

    def test_backend_auto_gives_a_reason_for_each_faster_backend_that_it_passed_over(self) -> None:
        choice = choose("bf16", WITHOUT_AMX, only("openvino", "onnxruntime"))
        assert choice.passed_over == {
            "tensorrt": "no tensorrt here",
            "onnxruntime-cuda": "no onnxruntime-cuda here",
            "openvino": "the processor has no fast bf16 instructions: "
            "expected amx_bf16 or avx512_bf16 of AuthenticAMD",
        }
        assert choice.reason == "it runs on every machine"

    def test_the_reason_for_choosing_openvino_names_the_precision_and_the_cpu_instruction(self) -> None:
        choice = choose("int8", WITHOUT_AMX, only("openvino", "onnxruntime"))
        assert choice.reason == "the model allows int8, and the processor has avx512_vnni"

    def test_a_backend_without_its_python_module_is_unavailable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backends, "BACKENDS", {"abacus": "engines.backends.abacus:Abacus"})
        assert backends.unavailable_reason("abacus") == "the Python module engines.backends.abacus is missing"

    def test_the_cuda_provider_is_unavailable_without_its_package(self) -> None:
        assert "replace the package onnxruntime by onnxruntime-gpu" in backends.unavailable_reason("onnxruntime-cuda")


@pytest.mark.parametrize(
    ("code", "error"), [(700, DeviceLost), (719, DeviceLost), (2, InferenceFailed), (1, InferenceFailed)]
)
def test_only_a_fatal_cuda_error_is_raised_as_device_lost(code: int, error: type[EngineError]) -> None:
    assert type(device_error(f"CUDA failure {code}: of a kind ; GPU=0 ; expr=cudaMemcpy")) is error
    assert type(device_error("invalid argument")) is InferenceFailed


class DescribedGpu:
    """The functions of ``libcuda`` that describe a GPU."""

    def __init__(self) -> None:
        self.cuDriverGetVersion = lambda out: self._set(out, 13010)
        self.cuDeviceGetCount = lambda out: self._set(out, 1)
        self.cuDeviceGet = lambda out, index: self._set(out, index)
        self.cuDeviceTotalMem_v2 = lambda out, _: self._set(out, 16 * 1024**3)
        self.cuDeviceGetAttribute = lambda out, attribute, _: self._set(out, {75: 8, 76: 9}[attribute])

    def cuDeviceGetName(self, out: ctypes.Array[ctypes.c_char], size: int, _: object) -> int:
        out.value = b"NVIDIA L4"[:size]
        return 0

    def _set(self, out: Any, value: int) -> int:
        out._obj.value = value
        return 0


class TestHardware:
    def test_gpus_are_listed_with_the_name_and_capability_from_the_driver(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hardware, "driver_reason", lambda: "")
        found = cuda(DescribedGpu)
        assert (found.unavailable_reason, found.cuda) == ("", "13.1")
        assert found.gpus == (Gpu("NVIDIA L4", "8.9", 16 * 1024**3),)

    def test_without_a_usable_gpu_the_reason_given_by_the_driver_is_reported(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(hardware, "driver_reason", lambda: "no NVIDIA driver")
        assert (cuda().unavailable_reason, cuda().gpus) == ("no NVIDIA driver", ())

    def test_processor_name_vendor_and_flags_are_read_from_cpuinfo(self, tmp_path: Path) -> None:
        file = tmp_path / "cpuinfo"
        first = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: EPYC 9354P\nflags\t\t: fpu avx2\n\n"
        file.write_text(first + "processor\t: 1\nmodel name\t: other\n")
        assert processor(file) == Cpu("EPYC 9354P", "AuthenticAMD", frozenset({"fpu", "avx2"}))

    def test_an_unreadable_cpuinfo_gives_no_processor_flags(self, tmp_path: Path) -> None:
        assert processor(tmp_path / "missing") == Cpu("unknown", "", frozenset())


class TestDoctor:
    def test_the_engine_doctor_reports_every_backend_and_a_choice_for_every_precision(self) -> None:
        report = doctor.describe_machine()
        assert report["backends"].keys() == backends.BACKENDS.keys()
        assert report["auto"].keys() == {"fp32", "bf16", "fp16", "int8"}
        for choice in report["auto"].values():
            assert not report["backends"][choice["backend"]]

    def test_the_engine_doctor_lists_the_cached_tensorrt_plans(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SIGHTLINE_HOME", str(tmp_path))
        assert doctor.describe_machine()["plans"] == {"folder": str(tmp_path / "plans"), "files": []}
        (tmp_path / "plans").mkdir()
        (tmp_path / "plans" / "ab12.plan").write_bytes(b"plan")
        (plan,) = doctor.describe_machine()["plans"]["files"]
        assert (plan["file"], plan["bytes"]) == ("ab12.plan", 4)

    def test_the_engine_doctor_measures_the_speed_of_a_model_on_a_backend(self) -> None:
        timing = doctor.time_model(Repository(MODELS).open("regions"), "onnxruntime", timed_s=0.001)
        assert (timing.model, timing.precision, timing.error) == ("regions@1", "fp32", "")
        assert timing.images_per_s > 0

    def test_the_engine_doctor_reports_the_error_of_a_model_that_a_backend_cannot_load(self, tmp_path: Path) -> None:
        model = Repository(MODELS).open("regions")
        (tmp_path / "model.onnx").write_bytes(b"no model")
        timing = doctor.time_model(type(model)(model.manifest, tmp_path), "openvino")
        assert "model.onnx" in timing.error
        assert timing.images_per_s == 0
