"""Output of `sightline engine doctor`: the machine that runs an engine node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.cli.output import print_rows, stdout


def print_machine(report: Mapping[str, Any], as_json: bool) -> None:
    """Print the report of ``engines.doctor.describe_machine`` with the speed of the models, as JSON or as text."""
    if as_json:
        stdout.print_json(data=report)
        return
    processor, nvidia = report["processor"], report["nvidia"]
    instructions = ", ".join(processor["instructions"]) or "none for a lower precision than fp32"
    stdout.print(f"processor: {processor['name']}, {processor['cores']} cores, {instructions}", highlight=False)
    for gpu in nvidia["gpus"]:
        stdout.print(f"GPU: {gpu['name']}, compute capability {gpu['compute_capability']}", highlight=False)
    driver = f"driver {nvidia['driver']}, CUDA up to {nvidia['cuda']}"
    stdout.print(f"NVIDIA: {nvidia['unavailable_reason'] or driver}", highlight=False, soft_wrap=True)
    _print_gpu_use(report["gpu_use"])
    versions = ", ".join(f"{package} {number or 'missing'}" for package, number in report["versions"].items())
    stdout.print(f"versions: {versions}", highlight=False, soft_wrap=True)
    plans = report["plans"]
    size_mb = sum(plan["bytes"] for plan in plans["files"]) / 1e6
    stdout.print(
        f"TensorRT plans: {len(plans['files'])} with {size_mb:.0f} MB in {plans['folder']}",
        highlight=False,
        soft_wrap=True,
    )
    backends = [{"name": name, "state": reason or "usable"} for name, reason in report["backends"].items()]
    print_rows(backends, False, {"name": "backend", "state": "state"})
    print_rows(_choices(report), False, {"precision": "precision", "backend": "auto chooses", "reason": "reason"})
    if report["models"]:
        columns = {name: name.replace("_", " ") for name in report["models"][0]}
        print_rows(report["models"], False, columns)


def _print_gpu_use(use: Mapping[str, Any]) -> None:
    if use["unavailable_reason"]:
        stdout.print(f"GPU use: unknown, {use['unavailable_reason']}", highlight=False, soft_wrap=True)
    for gpu in use["gpus"]:
        figures = []
        if gpu["utilisation"] is not None:
            figures.append(f"{100 * gpu['utilisation']:.0f} % computing")
        if gpu["memory_used_bytes"] is not None:
            figures.append(f"{gpu['memory_used_bytes'] / 2**30:.1f} of {gpu['memory_total_bytes'] / 2**30:.1f} GiB")
        if gpu["temperature_c"] is not None:
            figures.append(f"{gpu['temperature_c']} °C")
        stdout.print(f"GPU use: {gpu['index']} {gpu['name']}: {', '.join(figures)}", highlight=False)


def _choices(report: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return one table row per precision: the backend that ``auto`` chooses, and why it chooses no other backend."""
    rows = []
    for precision, choice in report["auto"].items():
        usable = {name: text for name, text in choice["passed_over"].items() if not report["backends"][name]}
        reason = "; ".join([choice["reason"], *(f"not {name}: {text}" for name, text in usable.items())])
        rows.append({"precision": precision, "backend": choice["backend"], "reason": reason})
    return rows
