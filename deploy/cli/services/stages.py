"""What the commands of the stream processors share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from ingest.exceptions import LogUnavailable
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import logs
from stream.runner.processor import Stage

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

EXIT_AGAIN = 75
"""EX_TEMPFAIL: Kafka is gone; started again, the worker goes on where it was."""

MetricsPort = Annotated[int, typer.Option(min=0, help="Serve Prometheus metrics here; 0 for nowhere.")]
Instance = Annotated[
    str,
    typer.Option("--instance", help="This worker's lasting name in its group: a restart waits for no session's end."),
]


def serve_stage(
    make: Callable[[Log], Awaitable[Stage]],
    settings: KafkaSettings,
    metrics_port: int,
    instance: str,
    registry: CollectorRegistry | None = None,
) -> None:
    """Run a stage until it is told to stop, and exit with its status. It may count in ``registry`` itself."""
    from prometheus_client import CollectorRegistry, start_http_server

    from stream.runner.loop import serve

    registry = registry or CollectorRegistry()
    if metrics_port:
        start_http_server(metrics_port, registry=registry)
    try:
        status = serve(make, settings, registry=registry, instance=instance)
    except LogUnavailable as error:
        logs.get("stream").error("ends", error=str(error))
        raise typer.Exit(EXIT_AGAIN) from None
    raise typer.Exit(status)
