"""`sightline engine`: run an engine node, or check the machine that runs the node."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploy.cli.common import (
    LOOPBACK,
    MODELS_VARIABLE,
    AsJson,
    Kafka,
    MetricsHost,
    MetricsPort,
    Prefix,
    friendly,
    kafka_settings,
)
from ingest.exceptions import ConfigError
from ingest.kafka.settings import SESSION_TIMEOUT_MS
from ingest.runtime import logs
from ingest.runtime.clock import SystemClock
from ingest.runtime.cpus import cpu_count
from ingest.runtime.eventloop import running_beside
from ingest.runtime.service import Service
from ingest.site import PipelineConfig

if TYPE_CHECKING:
    from engines.engine import Engine
    from engines.metrics import NodeMetrics
    from engines.node.pipelines import LiveModels
    from engines.node.serving import RepositorySource
    from engines.node.shadow import ShadowRunner
    from engines.node.takeover import OwnedPartition
    from engines.repository.manifest import Model
    from ingest.kafka.kafkalog import KafkaLog
    from ingest.kafka.log import Log, TopicPartition
    from ingest.site.topic.view import Config

app = typer.Typer(invoke_without_command=True)
_log = logs.get("engines.node")

PROMOTIONS_S = 5.0
"""Interval at which a node checks the model repository for promoted versions, in seconds."""


@app.callback()
@friendly
def engine(
    context: typer.Context,
    models: Annotated[
        Path | None,
        typer.Option(envvar=MODELS_VARIABLE, help="Folder of the model repository. Required.", show_default=False),
    ] = None,
    backend: Annotated[
        str, typer.Option(help="Inference backend: auto, tensorrt, onnxruntime-cuda, openvino, onnxruntime or fake.")
    ] = "auto",
    instances: Annotated[int, typer.Option(min=0, help="Batches computed at once on a CPU. 0: one per core.")] = 1,
    session_timeout: Annotated[
        float, typer.Option(min=6.0, help="Seconds until a silent node loses its partitions.")
    ] = (SESSION_TIMEOUT_MS / 1000),
    fused: Annotated[
        bool, typer.Option("--fused", help="Also prepare the frames, in place of `sightline prepare`.")
    ] = False,
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Classify batches until stopped.

    With --fused, prepare and classify frames. Nodes with --fused exclude `sightline prepare` and nodes without
    --fused: the service that starts later exits with an error. While the node runs, it applies changes of the site's
    pipelines, and loads model versions that are promoted or rolled back. Exits with 75 if another node has taken over
    the node's partitions, if Kafka cannot be reached, or if services that exclude each other run.
    """
    if context.invoked_subcommand:
        return
    if models is None:
        raise typer.BadParameter("expected the folder of the model repository", param_hint="--models")
    service = Service("engine", kafka_settings(kafka, prefix), metrics_port, metrics_host)
    count = instances or cpu_count()
    options = _NodeOptions(models, backend, count, round(session_timeout * 1000), fused)
    raise typer.Exit(service.run(lambda stop: _serve(service, stop, options)))


@dataclass(frozen=True, slots=True)
class _NodeOptions:
    """Options of a node. ``models`` is the folder of the model repository."""

    models: Path
    backend: str
    instances: int
    session_timeout_ms: int
    fused: bool


async def _serve(service: Service, stop: asyncio.Event, options: _NodeOptions) -> None:
    """Load the models of the configured pipelines, then run a node until ``stop`` is set."""
    from engines.gpuuse import export_gpu_use
    from engines.metrics import NodeMetrics
    from engines.node.pipelines import LiveModels
    from engines.node.shadow import ShadowRunner

    require_usable(options.backend)
    async with service.open_log(stop) as log, contextlib.AsyncExitStack() as stack:
        metrics = NodeMetrics(service.registry)
        export_gpu_use(service.registry)
        live = LiveModels(_source(options, options.instances), metrics, SystemClock().monotonic)
        stack.push_async_callback(live.close)
        shadow = ShadowRunner(_source(options, 1), log.produce, metrics)
        stack.push_async_callback(shadow.close)

        config = await service.watch.unless_stopped(stop, service.read_config(log))
        parts = ConfiguredParts(live, shadow, PrepareHost(config) if options.fused else None)
        await parts.open(config)
        async with running_beside(  # a node that no longer follows its configuration must end
            stop,
            service.follow_config(config, parts.configure),
            live.run(PROMOTIONS_S),
            shadow.run(PROMOTIONS_S),
        ):
            await _run_node(service, stop, options, log, metrics, parts)


async def _run_node(
    service: Service,
    stop: asyncio.Event,
    options: _NodeOptions,
    log: KafkaLog,
    metrics: NodeMetrics,
    parts: ConfiguredParts,
) -> None:
    """Join the consumer group, and classify until ``stop`` is set."""
    from engines.backends.hardware import cpu_slots
    from engines.node.intake import BatchIntake
    from engines.node.node import Node
    from engines.node.takeover import take_over
    from ingest.contract.groups import ENGINES, FUSED_CLIENT
    from ingest.kafka.kafkalog import KafkaLog
    from ingest.kafka.membership import MemberGuard
    from ingest.runtime.heartbeat import instance_name

    async def refresh() -> None:
        with contextlib.suppress(ConfigError):
            parts.configure(await service.read_config(log))

    client_id = f"{FUSED_CLIENT if options.fused else 'engine-'}{instance_name()}"
    intake = BatchIntake(
        service.settings, client_id, options.instances, options.session_timeout_ms, fused=options.fused
    )
    node = Node(
        KafkaLog(service.settings, client_id),
        intake,
        parts.live,
        concurrency=max(parts.live.slot_count, cpu_slots(options.instances)),
        metrics=metrics,
        refresh=refresh,
        shadow=parts.shadow,
        take_over=parts.prepare.take_over if parts.prepare else take_over,
    )
    service.health.ready_when(node.unready_reason)
    async with MemberGuard(log, ENGINES, intake.spread_topics, client_id, metrics.idle_member).watching(stop):
        await node.run(stop)


@dataclass(frozen=True, slots=True)
class ConfiguredParts:
    """The parts of an engine node that change with the configuration. ``prepare`` is None without --fused."""

    live: LiveModels
    shadow: ShadowRunner
    prepare: PrepareHost | None

    def configure(self, config: Config) -> None:
        """Use other pipelines from now on. Raise ConfigError for a pipeline that cannot be served."""
        if self.prepare:
            self.prepare.configure(config)
        pipelines = list(config.of(PipelineConfig))
        self.live.want(pipelines)
        self.shadow.want(pipelines)

    async def open(self, config: Config) -> None:
        """Load the models of a configuration. Raise ConfigError if none of its pipelines can be served."""
        self.configure(config)
        try:
            await self.live.update()
        except ConfigError:  # one pipeline that cannot be served does not keep the node from the others
            if not self.live.names and all(pipeline.has_model for pipeline in config.of(PipelineConfig)):
                raise


class PrepareHost:
    """The stages ``prepare-live`` and ``prepare-late`` inside an engine node.

    Raise ConfigError for a pipeline that cannot be served.
    """

    def __init__(self, config: Config) -> None:
        import cv2

        from stream.prepare.stage import PrepareStage

        cv2.setNumThreads(1)  # partitions are prepared in parallel already
        self._stages = {
            stage.topics[0]: stage for stage in (PrepareStage("live", config), PrepareStage("late", config))
        }

    def configure(self, config: Config) -> None:
        """Use other pipelines from the next frame on."""
        for stage in self._stages.values():
            stage.configure(config)

    async def take_over(self, log: Log, tps: Sequence[TopicPartition]) -> list[OwnedPartition]:
        """Take over partitions of frames and batches. Raise HostConflict or LogUnavailable."""
        from engines.node.fused import take_over_frames

        return await take_over_frames(log, tps, lambda tp: self._stages[tp.topic].processor(tp))


def _source(options: _NodeOptions, instances: int) -> RepositorySource:
    """Return the source that loads the repository's models with the backend that the options name. While a TensorRT
    plan is being built, the source loads the model with a CPU backend."""
    from engines import backends
    from engines.node.serving import RepositorySource
    from engines.repository.store import Repository

    return RepositorySource(
        Repository(options.models),
        lambda model: make_engine(model, options.backend, instances),
        lambda model: backends.make(backends.choose_cpu_here(model.manifest.precision).backend, instances),
    )


def make_engine(model: Model, backend: str, instances: int) -> Engine:
    """Return a new engine for a model. With ``auto``, choose a backend and log the reason."""
    from engines import backends

    if backend == backends.AUTO:
        choice = backends.choose_here(model.manifest.precision)
        passed_over = dict(choice.passed_over)
        _log.info(
            "backend_chosen",
            model=model.manifest.id,
            backend=choice.backend,
            reason=choice.reason,
            passed_over=passed_over,
        )
        backend = choice.backend
    return backends.make(backend, instances)


def require_usable(backend: str) -> None:
    """Raise ConfigError with the reason if this machine cannot use a backend."""
    from engines import backends

    if backend == backends.AUTO:
        return
    if backend not in backends.BACKENDS:
        raise ConfigError(
            "engine", "--backend", backend, f"one of {', '.join(sorted([backends.AUTO, *backends.BACKENDS]))}"
        )
    if reason := backends.unavailable_reason(backend):
        raise ConfigError("engine", "--backend", backend, f"a backend that this machine can use ({reason})")


@app.command()
@friendly
def doctor(
    models: Annotated[
        Path | None, typer.Option(help="Model repository: measure each model on each backend.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show devices, package versions and backends, and the backend that `auto` chooses with the reasons.

    With --models, also show the speed of every served model on every usable backend, one batch at a time.
    """
    from deploy.cli.services.machine import print_machine
    from engines import doctor
    from engines.repository.store import Repository

    if models and not models.is_dir():
        raise ConfigError("engine doctor", "--models", str(models), "a model repository")
    report = doctor.describe_machine()
    report["models"] = [asdict(timing) for timing in doctor.time_models(Repository(models))] if models else []
    print_machine(report, as_json)
