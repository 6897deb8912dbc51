"""Tests of `sightline engine` and its doctor."""

from __future__ import annotations

import json

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from typer.testing import CliRunner

from deploy.cli.app import app
from deploy.cli.common import USAGE_EXIT
from deploy.cli.services.engine import ConfiguredParts, make_engine, require_usable
from engines import backends, doctor
from engines.backends.auto import AUTO_ORDER
from engines.gpuuse import GpuMonitor
from engines.metrics import NodeMetrics
from engines.node.pipelines import LiveModels
from engines.node.shadow import ShadowRunner
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.kafka.memorylog import MemoryLog
from ingest.site import PipelineConfig
from ingest.site.topic.view import Config
from tests.engines.fakenvml import FakeNvml
from tests.engines.node.fakesource import CARS, PEOPLE, FakeSource
from tests.paths import MODELS


def test_the_engine_doctor_prints_a_json_report_with_the_speed_of_each_backend() -> None:
    result = CliRunner().invoke(app, ["engine", "doctor", "--json", "--models", str(MODELS)])
    report = json.loads(result.stdout)
    assert report["backends"]["onnxruntime"] == ""
    assert {"onnxruntime", "openvino"} <= {timing["backend"] for timing in report["models"]}
    assert [timing["error"] for timing in report["models"]] == [""] * len(report["models"])


def test_the_engine_doctor_prints_the_backend_that_auto_chooses() -> None:
    result = CliRunner().invoke(app, ["engine", "doctor"])
    assert result.exit_code == 0
    assert "auto chooses" in result.stdout


def test_the_engine_doctor_prints_the_gpu_usage_or_why_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "GpuMonitor", lambda: GpuMonitor(FakeNvml))
    assert "GPU use: 0 NVIDIA H0: 40 % computing, 1.0 of 16.0 GiB, 51 °C" in printed()
    assert "GPU use: 1 NVIDIA H1: 41 % computing, 1.0 of 16.0 GiB\n" in printed()
    monkeypatch.setattr(doctor, "GpuMonitor", lambda: GpuMonitor(lambda: FakeNvml("Driver Not Loaded")))
    assert "GPU use: unknown, NVML cannot be started: Driver Not Loaded" in printed()


def printed() -> str:
    result = CliRunner().invoke(app, ["engine", "doctor"])
    assert result.exit_code == 0
    return result.stdout


def test_the_engine_command_without_a_model_repository_is_refused() -> None:
    result = CliRunner().invoke(app, ["engine"])
    assert result.exit_code == USAGE_EXIT
    assert "--models" in result.stderr


def test_an_unusable_engine_backend_is_refused_with_its_reason() -> None:
    with pytest.raises(ConfigError, match="replace the package onnxruntime by onnxruntime-gpu"):
        require_usable("onnxruntime-cuda")
    with pytest.raises(ConfigError, match="expected one of auto, fake, onnxruntime, onnxruntime-cuda, openvino"):
        require_usable("abacus")


def test_backend_auto_creates_an_engine_of_the_chosen_backend() -> None:
    model = Repository(MODELS).open("regions")
    with capture_logs() as lines:
        engine = make_engine(model, "auto", 1)
    (line,) = lines
    assert (line["event"], line["model"]) == ("backend_chosen", "regions@1")
    assert type(engine) is type(backends.make(line["backend"]))
    assert line["passed_over"].keys() == set(AUTO_ORDER[: AUTO_ORDER.index(line["backend"])])


@pytest.mark.parametrize(
    ("others", "starts"),
    [
        ([], False),
        ([PEOPLE.model_copy(update={"model": "regions@1"})], True),
        ([PipelineConfig.model_validate({"name": "moving", "model": "motion"})], True),
    ],
    ids=["no other pipeline", "another model", "no model"],
)
async def test_a_node_that_can_serve_another_pipeline_starts_although_a_model_is_refused(
    others: list[PipelineConfig], starts: bool
) -> None:
    source, metrics = FakeSource(), NodeMetrics(CollectorRegistry())
    source.broken = {"regions@2"}
    live = LiveModels(source, metrics, lambda: 0.0)
    parts = ConfiguredParts(live, ShadowRunner(source, MemoryLog(1).produce, metrics), None)
    pipelines = [CARS.model_copy(update={"model": "regions@2"}), *others]
    config = Config({pipeline.key: pipeline for pipeline in pipelines})
    if starts:
        await parts.open(config)
    else:
        with pytest.raises(ConfigError, match="is broken"):
            await parts.open(config)
    await live.close()
    await parts.shadow.close()
