"""`sightline engine`: an engine node."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import LOOPBACK, Kafka, MetricsHost, MetricsPort, Prefix, friendly, kafka_settings
from ingest.exceptions import ConfigError, Outdated
from ingest.kafka.settings import SESSION_TIMEOUT_MS
from ingest.runtime.service import Service
from ingest.site import PipelineConfig


@friendly
def engine(
    models: Annotated[Path, typer.Option(help="Folder of the model repository.")],
    backend: Annotated[str, typer.Option(help="Inference backend: onnxruntime or fake.")] = "onnxruntime",
    instances: Annotated[int, typer.Option(min=0, help="Batches computed at once on a CPU. 0: one per core.")] = 1,
    session_timeout: Annotated[
        float, typer.Option(min=6.0, help="Seconds until a silent node loses its partitions.")
    ] = (SESSION_TIMEOUT_MS / 1000),
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Classify batches until stopped.

    Exits with 75 when another node has taken over, Kafka is gone, or the pipelines of the site have changed. After
    the restart, the node serves the new pipelines.
    """
    service = Service("engine", kafka_settings(kafka, prefix), metrics_port, metrics_host)
    count = instances or os.cpu_count() or 1
    raise typer.Exit(service.run(lambda stop: _serve(service, stop, models, backend, count, session_timeout)))


async def _serve(
    service: Service, stop: asyncio.Event, models: Path, backend: str, instances: int, session_timeout_s: float
) -> None:
    from engines import backends
    from engines.metrics import NodeMetrics
    from engines.node.intake import BatchIntake
    from engines.node.node import Node
    from engines.node.pipelines import PipelineWatch
    from engines.node.serving import ServedModel
    from engines.node.takeover import GROUP
    from engines.repository.store import Repository
    from ingest.contract.topics import BATCHES, BATCHES_LATE
    from ingest.kafka.kafkalog import KafkaLog
    from ingest.kafka.membership import MemberGuard
    from ingest.runtime.heartbeat import instance_name

    if backend not in backends.BACKENDS:
        raise ConfigError("engine", "--backend", backend, f"one of {', '.join(sorted(backends.BACKENDS))}")
    repository = Repository(models)

    def served_model(pipeline: PipelineConfig) -> ServedModel:
        return ServedModel(pipeline, repository.open(pipeline.model), backends.make(backend, instances))

    async with service.open_log() as log:
        config = await service.read_config(log)
        served = {pipeline.name: served_model(pipeline) for pipeline in config.of(PipelineConfig)}
        for model in served.values():
            await asyncio.to_thread(model.open)
        watch = PipelineWatch(config.of(PipelineConfig), served_model, stop)

        async def outdated() -> bool:
            with contextlib.suppress(ConfigError):
                watch.configure(await service.read_config(log))
            return watch.outdated

        client_id = f"engine-{instance_name()}"
        metrics = NodeMetrics(service.registry)
        guard = MemberGuard(log, GROUP, (BATCHES, BATCHES_LATE), client_id, metrics.idle_member)
        node = Node(
            KafkaLog(service.settings, client_id),
            BatchIntake(service.settings, client_id, instances, round(session_timeout_s * 1000)),
            served,
            concurrency=instances + 1,
            metrics=metrics,
            outdated=outdated,
        )
        following = asyncio.create_task(service.follow_config(config, watch.configure))
        try:
            async with guard.watching(stop):
                await node.run(stop)
        finally:
            following.cancel()
            await asyncio.wait({following})
    for model in served.values():
        model.close()
    if watch.outdated:
        raise Outdated("the pipelines of the site have changed: start this node again to serve them")
