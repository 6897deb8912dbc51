"""`sightline prepare`: frames in, batches out."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from deploy.cli.common import Kafka, Prefix, friendly, kafka_settings
from deploy.cli.services.stages import Instance, MetricsPort, serve_stage
from ingest.kafka.log import Log
from ingest.runtime import logs
from ingest.site.topic import store as configstore

LATE_NICENESS = 10
"""Of the late lane's worker: live frames go first on a machine that is full, late ones still move."""


class Lane(StrEnum):
    """Which frames a worker prepares."""

    LIVE = "live"
    LATE = "late"


@friendly
def prepare(
    lane: Annotated[Lane, typer.Option(help="Live frames, or the backlog of outages.")],
    metrics_port: MetricsPort = 0,
    instance: Instance = "",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Decode, denoise and batch frames until told to stop. Exits with 70 after an error, 75 when Kafka is gone."""
    import cv2
    from prometheus_client import CollectorRegistry

    from ingest.metrics import ConfigMetrics
    from stream.prepare.stage import PrepareStage

    registry = CollectorRegistry()

    async def make(log: Log) -> PrepareStage:
        return PrepareStage(lane.value, await configstore.read(log, ConfigMetrics(registry)))

    logs.configure(f"prepare-{lane.value}")
    if lane is Lane.LATE:
        os.nice(LATE_NICENESS)
    cv2.setNumThreads(1)  # partitions are prepared in parallel already
    serve_stage(make, kafka_settings(kafka, prefix), metrics_port, instance, registry)
