"""Dated reports of benchmark results."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
"""Folder with footage and public models, outside of the repository."""
RESULTS = ROOT / "benchmarks" / "results"


def dated(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures with the date, the machine and its current load average."""
    machine = {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
    return {"date": datetime.now(UTC).isoformat(timespec="minutes"), "machine": machine, **figures}


def keep(name: str, report: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Write a report under today's date and its name. It replaces a report of the same name and day."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
    (folder / f"{datetime.now(UTC).date().isoformat()}-{name}.json").write_text(text)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
