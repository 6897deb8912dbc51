"""Dated reports of benchmark results."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
"""Folder with footage and public models, outside of the repository."""
RESULTS = ROOT / "benchmarks" / "results"

Out = Annotated[Path, typer.Option(help="Folder of the results.")]
KeepIt = Annotated[bool, typer.Option("--keep", help="Write the report into benchmarks/results.")]


def keep(name: str, figures: Mapping[str, Any], folder: Path | None = RESULTS) -> dict[str, Any]:
    """Return figures with the date, the machine and its load average.

    If ``folder`` is given, write the figures to a file named after the date and ``name``. The file replaces an older
    file of the same name.
    """
    machine = {
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }
    now = datetime.now(UTC)
    report = {"date": now.isoformat(timespec="minutes"), "machine": machine, **figures}
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        (folder / f"{now.date().isoformat()}-{name}.json").write_text(text)
    return report


def conclude(name: str, figures: Mapping[str, Any], wrong: Sequence[str], *, keep_it: bool, quiet: str = "") -> None:
    """Print a report without the key that ``quiet`` names, and write the whole report to a file if ``keep_it``.

    Exit with 1 if ``wrong`` is not empty.
    """
    report = keep(name, figures, RESULTS if keep_it else None)
    typer.echo(json.dumps({key: value for key, value in report.items() if key != quiet}, indent=2))
    if wrong:
        typer.echo(f"{name} failed: {', '.join(wrong)}", err=True)
        raise typer.Exit(1)


def log_progress(text: str) -> None:
    """Print a progress message on stderr."""
    typer.echo(text, err=True)


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
