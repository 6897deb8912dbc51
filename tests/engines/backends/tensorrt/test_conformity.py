"""Check that the names this backend uses exist in TensorRT 10.13 and 11.4.

``conform.py`` checks the names of the module and keyword arguments. The fakes cover the methods of objects: the tests
of the backend use no other methods, and each method of a fake exists in both versions with the same parameters.

The listings of both APIs are in the shared folder beside the checkout. Without the listings, these tests are skipped.
"""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines.backends.tensorrt import faketensorrt as fake
from tests.paths import ROOT

CHECKER = ROOT.parent / "shared" / "tensorrt" / "conform.py"
FILES = sorted((ROOT / "engines" / "backends" / "tensorrt").glob("*.py"))
FAKES = {
    fake.FakeBuilder: "Builder",
    fake.FakeConfig: "IBuilderConfig",
    fake.FakeContext: "IExecutionContext",
    fake.FakeCudaEngine: "ICudaEngine",
    fake.FakeILogger: "ILogger",
    fake.FakeNetwork: "INetworkDefinition",
    fake.FakeParser: "OnnxParser",
    fake.FakeProfile: "IOptimizationProfile",
    fake.FakeRuntime: "Runtime",
}
HELPERS = {"compute", "read", "refuse"}
"""Methods of the fakes that the real classes lack. The product does not call these methods."""
needs_listings = pytest.mark.skipif(
    not CHECKER.is_file(), reason="the listings of TensorRT's API are missing: ../shared/tensorrt/conform.py"
)


def check(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, CHECKER, file, "10.13,11.4"], capture_output=True, text=True, check=False)


@needs_listings
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_all_tensorrt_names_of_the_product_exist_in_both_supported_versions(file: Path) -> None:
    done = check(file)
    assert done.returncode == 0, done.stdout


@needs_listings
def test_a_name_that_tensorrt_11_removed_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "old.py"
    file.write_text("config.set_flag(trt.BuilderFlag.FP16)\n")
    assert "TensorRT 11.4: line 1: BuilderFlag.FP16" in check(file).stdout


@needs_listings
@pytest.mark.parametrize("version", ["10.13", "11.4"])
@pytest.mark.parametrize("cls", FAKES, ids=FAKES.values())
def test_real_tensorrt_has_the_methods_of_the_fake_with_the_same_parameters(cls: type, version: str) -> None:
    real = json.loads((CHECKER.parent / f"api-{version}.json").read_text())["classes"][FAKES[cls]]
    for name, member in vars(cls).items():
        if name.startswith("_") or name in HELPERS:
            continue
        if not inspect.isfunction(member):
            assert name in {*real["properties"], *real["attrs"]}, name
            continue
        ours = list(inspect.signature(member).parameters)
        assert any(ours == parameters(text) for text in real["methods"][name]), real["methods"][name]


def parameters(signature: str) -> list[str]:
    """Return the parameter names of a listed signature: ``set_shape(self: IOptimizationProfile, min: Dims)``."""
    without_defaults = re.sub(r"<[^>]*>", "", signature).rpartition(" -> ")[0]
    return re.findall(r"(\w+):(?!:)", without_defaults.partition("(")[2])
