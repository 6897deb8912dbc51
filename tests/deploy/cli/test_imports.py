"""Test of the libraries that the command line imports before it runs a command."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ["cv2", "faust", "onnx", "onnxruntime", "openvino", "scipy", "supervision", "trackers"]


def test_the_command_line_imports_no_heavy_library_before_it_runs_a_command() -> None:
    code = f"import sys, deploy.cli.app; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
