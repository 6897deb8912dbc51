"""`sightline prepare`: frames in, batches out."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer

from deploy.cli.common import Kafka, Prefix, friendly, kafka_settings
from ingest import logs
from ingest.exceptions import LogUnavailable
from ingest.kafka import KafkaSettings

__all__ = ["Lane", "prepare"]

EXIT_AGAIN = 75
"""EX_TEMPFAIL: Kafka is gone; started again, the worker goes on where it was."""
LATE_NICENESS = 10
"""Of the late lane's worker: live frames go first on a machine that is full, late ones still move."""


class Lane(StrEnum):
    """Which frames a worker prepares."""

    LIVE = "live"
    LATE = "late"


@friendly
def prepare(
    lane: Annotated[Lane, typer.Option(help="Live frames, or the backlog of outages.")],
    metrics_port: Annotated[int, typer.Option(min=0, help="Serve Prometheus metrics here; 0 for nowhere.")] = 0,
    instance: Annotated[
        str, typer.Option(help="This worker's lasting name in its group: a restart then waits for no session's end.")
    ] = "",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Decode, denoise and batch frames until told to stop. Exits with 70 after an error, 75 when Kafka is gone."""
    logs.configure(f"prepare-{lane.value}")
    if lane is Lane.LATE:
        os.nice(LATE_NICENESS)
    try:
        status = _serve(lane, kafka_settings(kafka, prefix), metrics_port, instance)
    except LogUnavailable as error:
        logs.get("stream").error("ends", error=str(error))
        raise typer.Exit(EXIT_AGAIN) from None
    raise typer.Exit(status)


def _serve(lane: Lane, settings: KafkaSettings, metrics_port: int, instance: str) -> int:
    import cv2
    from prometheus_client import CollectorRegistry, start_http_server

    from ingest import configstore
    from ingest.log import Log
    from stream.prepare.stage import PrepareStage
    from stream.runner.loop import serve

    cv2.setNumThreads(1)  # partitions are prepared in parallel already
    registry = CollectorRegistry()
    if metrics_port:
        start_http_server(metrics_port, registry=registry)

    async def make(log: Log) -> PrepareStage:
        return PrepareStage(lane.value, await configstore.read(log))

    return serve(make, settings, registry=registry, instance=instance)
