"""Print the report of an inspection, and the manifest of a stored model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from deploy.cli.output import print_rows, printable, stdout
from deploy.local.modeltest import pipeline_of
from engines.repository.canary import CanaryChange
from engines.repository.inspection import TensorInfo
from engines.repository.manifest import BEHAVIOUR, EMBEDDING, FORECAST, Decoding, Model
from engines.repository.report import ModelReport
from stream.events import rfc3339

_SHOWN_LABELS = 6


def print_report(report: ModelReport, models: Path | None, as_json: bool) -> None:
    """Print a report. ``models`` is the repository in which the model is stored, or None if no model is stored."""
    if as_json:
        stdout.print_json(data=report.model_dump(mode="json") | {"assumed": [s.key for s in report.assumed()]})
        return
    facts = report.facts
    _line(f"{report.file}: opset {facts.opset}, {facts.producer or 'unknown producer'}, {report.layout.upper()}")
    for tensor in facts.inputs:
        _line(f"  input {_tensor(tensor)}")
    for tensor in report.outputs:
        _line(f"  output {_tensor(tensor)}, values {tensor.low:.3g} to {tensor.high:.3g} on noise")
    rows = [{"key": s.key, "value": _short(s.value), "source": s.source, "reason": s.reason} for s in report.settings]
    print_rows(rows, False, {"key": "setting", "value": "value", "source": "from", "reason": "because"})
    for rejected in report.rejected:
        _line(f"Not this decoder: {rejected}")
    if assumed := report.assumed():
        _line(
            f"The file does not show: {', '.join(s.key for s in assumed)}. Compare with the model's documentation; "
            "options override them."
        )
    if report.model and models is not None:
        name = report.model.partition("@")[0]
        _line(f"{report.model} added in {models / name}, for batches of up to {report.max_batch}.")
        is_second = any(s.key == "decoder" and s.value == EMBEDDING for s in report.settings)
        command = f"show {name}" if is_second else f"test {name} PICTURE"
        _line(f"Next: sightline models {command} --models {models}")


def print_manifest(
    model: Model, versions: Sequence[int], served: int, trail: Sequence[CanaryChange], as_json: bool
) -> None:
    """Print a model's manifest, the versions and canaries of the model, and a pipeline, forecast or rule for the site
    file."""
    manifest = model.manifest
    if as_json:
        extra = {"versions": list(versions), "served": served, "folder": str(model.folder)}
        extra["canaries"] = [one.model_dump(mode="json") for one in trail]
        stdout.print_json(data=manifest.model_dump(mode="json") | extra)
        return
    _line(f"{manifest.id} in {model.folder}, versions {', '.join(map(str, versions))}, served {served}")
    values = manifest.model_dump(mode="json", exclude={"name", "version", "training", "input", "decoding", "origin"})
    values |= {f"input.{key}": value for key, value in manifest.input.model_dump().items()}
    values |= {f"decoding.{key}": value for key, value in manifest.decoding.model_dump().items()}
    values |= {f"origin.{key}": value for key, value in manifest.origin.items()}
    values |= {f"training.{k}": value for k, value in manifest.training.items() if not isinstance(value, dict | list)}
    for key, value in values.items():
        _line(f"  {key:<26} {_short(value)}")
    for one in trail:
        reason = f": {one.reason}" if one.reason else ""
        _line(f"  canary {rfc3339(one.at_ns)} {one.id} {one.change} (share {one.share:g}){reason}")
    if manifest.decoder == FORECAST:
        forecast = {"name": manifest.name, "measure": "MEASURE", "value": "VALUE", "model": manifest.name}
        _line("A forecast with this model in the site file:\n")
        _line("[[forecasts]]\n" + tomli_w.dumps(forecast))
        return
    if manifest.decoder == BEHAVIOUR:
        rule = {
            "name": f"{manifest.name}-rule",
            "type": "behaviour",
            "model": manifest.id,
            "behaviour": manifest.labels[-1],
        }
        _line("Some settings of a rule with this model in the site file:\n")
        _line("[[rules]]\n" + tomli_w.dumps(rule))
        return
    if manifest.decoder == EMBEDDING:
        _line("Settings of a pipeline with this model in the site file:\n")
        then, appearance = {"name": "look", "model": manifest.name, "margin": 0.0}, {"second_model": "look"}
        _line("[[pipelines.then]]\n" + tomli_w.dumps(then))
        _line("[pipelines.appearance]\n" + tomli_w.dumps(appearance))
        return
    _line("A pipeline with this model in the site file:\n")
    pipeline = pipeline_of(manifest).model_dump(
        include={"name", "model", "width", "height", "colour", "fit", "regions"}
    )
    _line("[[pipelines]]\n" + tomli_w.dumps(pipeline))


def _tensor(tensor: TensorInfo) -> str:
    shape = ", ".join("any" if d is None else str(d) for d in tensor.shape)
    return f"{tensor.name} {tensor.dtype} ({shape})"


def _short(value: Any) -> str:
    """Format a value as one line. A long list is shortened to its length and its first elements."""
    if isinstance(value, Decoding):
        values = value.model_dump(exclude={"settings"}, exclude_defaults=True) | value.settings
        return ", ".join(f"{key} {found}" for key, found in values.items())
    if isinstance(value, list | tuple):
        shown = ", ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in value[:_SHOWN_LABELS])
        return shown if len(value) <= _SHOWN_LABELS else f"{len(value)}: {shown}, …"
    return str(value)


def _line(text: str) -> None:
    """Print text from an untrusted source without Rich markup."""
    stdout.print("\n".join(map(printable, text.split("\n"))), markup=False, soft_wrap=True)
