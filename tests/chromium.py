"""The browser for tests of the console's pages."""

from __future__ import annotations

import shutil
from typing import Any

import pytest


def launch_options() -> dict[str, Any]:
    """Return Playwright's options to launch Chromium without a window. Skip the test if Chromium is missing."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.skip("no chromium on this machine: `make peers` installs it")
    return {"executable_path": found, "args": ["--no-sandbox"]}
