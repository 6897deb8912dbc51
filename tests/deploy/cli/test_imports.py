"""Test of the libraries that the command line and the services import before they run."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["cv2", "faust", "onnx", "onnxruntime", "openvino", "scipy", "lap"]
UNUSED = ["aiohttp", "cryptography", "fastapi", "httpx", "onnx", "rich", "scipy", "yaml"]
"""Packages that the services below do not need."""


def _imported(statements: str, packages: list[str]) -> str:
    code = f"import sys; {statements}; print([name for name in {packages} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_command_line_imports_no_heavy_library_before_it_runs_a_command() -> None:
    assert _imported("import deploy.cli.app", [*HEAVY, "aiokafka", "numpy", "pydantic"]) == "[]"


@pytest.mark.parametrize(
    "modules",
    [
        "deploy.cli.services.stream, stream.runner.loop, stream.prepare.stage",
        "deploy.cli.services.stream, stream.runner.loop, stream.analyse.stage, stream.rules",
        "deploy.cli.services.engine, engines.node.node, engines.node.shadow, engines.backends.onnxruntime",
    ],
    ids=["prepare", "analyse", "engine"],
)
def test_a_service_imports_no_package_that_it_does_not_use(modules: str) -> None:
    assert _imported(f"import {modules}", UNUSED) == "[]"
