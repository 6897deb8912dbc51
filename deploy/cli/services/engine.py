"""`sightline engine`: an engine node."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from deploy.cli.common import Kafka, Prefix, friendly, kafka_settings, run
from ingest.exceptions import ConfigError, Fenced, LogUnavailable
from ingest.kafka.settings import SESSION_TIMEOUT_MS, KafkaSettings
from ingest.runtime import logs

EXIT_AGAIN = 75
"""EX_TEMPFAIL: the process has let go of partitions or of the broker; a new one takes over where it was."""


@friendly
def engine(
    models: Annotated[Path, typer.Option(help="The model repository's folder.")],
    backend: Annotated[str, typer.Option(help="What runs the models: onnxruntime or fake.")] = "onnxruntime",
    instances: Annotated[int, typer.Option(min=0, help="Engines at work at once; 0 for one per core.")] = 1,
    session_timeout: Annotated[
        float, typer.Option(min=6.0, help="Seconds until a silent node loses its partitions.")
    ] = (SESSION_TIMEOUT_MS / 1000),
    metrics_port: Annotated[int, typer.Option(min=0, help="Serve Prometheus metrics here; 0 for nowhere.")] = 0,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Classify batches until told to stop. Exits with 75 when another node has taken over, or Kafka is gone."""
    logs.configure("engine")
    settings = kafka_settings(kafka, prefix)
    try:
        run(_serve(settings, models, backend, instances or os.cpu_count() or 1, session_timeout, metrics_port))
    except (Fenced, LogUnavailable) as error:
        logs.get("engines").error("ends", error=str(error), kind=type(error).__name__)
        raise typer.Exit(EXIT_AGAIN) from None


async def _serve(
    settings: KafkaSettings, models: Path, backend: str, instances: int, session_timeout_s: float, metrics_port: int
) -> None:
    from prometheus_client import CollectorRegistry, start_http_server

    from engines import backends
    from engines.metrics import NodeMetrics
    from engines.node.node import Node
    from engines.node.serving import ServedModel
    from engines.repository.store import Repository
    from ingest.contract.topics import require_topics
    from ingest.kafka.kafkalog import KafkaLog
    from ingest.metrics import ConfigMetrics
    from ingest.runtime.signals import stop_event
    from ingest.site.topic import store as configstore

    if backend not in backends.BACKENDS:
        raise ConfigError("engine", "--backend", backend, f"one of {', '.join(sorted(backends.BACKENDS))}")
    stop, log, repository = stop_event(), KafkaLog(settings, "engine-config"), Repository(models)
    registry = CollectorRegistry()
    try:
        require_topics(await log.partitions())
        pipelines = (await configstore.read(log, ConfigMetrics(registry))).pipelines
    finally:
        await log.close()
    served = {
        p.name: ServedModel(p, repository.open(p.model), lambda: backends.make(backend), instances) for p in pipelines
    }
    for pipeline in served.values():
        await asyncio.to_thread(pipeline.open)
    if metrics_port:
        start_http_server(metrics_port, registry=registry)
    node = Node(
        settings,
        served,
        instances=instances,
        metrics=NodeMetrics(registry),
        session_timeout_ms=round(session_timeout_s * 1000),
    )
    await node.run(stop)
    for pipeline in served.values():
        pipeline.close()
