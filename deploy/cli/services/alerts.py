"""`sightline alerts`, `dispatch` and `webhook-receiver`: from events to receipts."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, kafka_settings, run
from deploy.cli.services.stages import EXIT_AGAIN, Instance, MetricsPort, serve_stage
from ingest.contract.topics import ALERTS, require_topics
from ingest.exceptions import ConfigError, LogUnavailable
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import logs
from ingest.site.topic import store as configstore


@friendly
def alerts(
    evidence: Annotated[Path, typer.Option(help="Folder for the evidence pictures.")],
    metrics_port: MetricsPort = 0,
    instance: Instance = "",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Keep the evidence of each event, then raise its alert. Exits with 70 after an error, 75 without Kafka."""
    from stream.alerts.evidence import FolderStore
    from stream.alerts.stage import AlertStage

    async def make(log: Log) -> AlertStage:
        return AlertStage(FolderStore(evidence), (await log.partitions())[ALERTS])

    logs.configure("alerts")
    serve_stage(make, kafka_settings(kafka, prefix), metrics_port, instance)


@friendly
def dispatch(kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Take alerts to the receivers of the site, with a receipt for each attempt. Exits with 75 without Kafka."""
    logs.configure("dispatch")
    try:
        run(_dispatch(kafka_settings(kafka, prefix)))
    except LogUnavailable as error:
        logs.get("stream.dispatch").error("ends", error=str(error))
        raise typer.Exit(EXIT_AGAIN) from None


@friendly
def webhook_receiver(
    secret_file: Annotated[Path, typer.Option(help="The signing secret, whsec_….")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where to listen.")] = 8080,
    host: Annotated[str, typer.Option(help="On which address.")] = "127.0.0.1",
    out: Annotated[Path | None, typer.Option(help="Append what comes to this file, a JSON line each.")] = None,
    as_json: AsJson = False,
) -> None:
    """Receive webhooks, verify them with the standardwebhooks package, and show what came."""
    import uvicorn

    from stream.alerts.receiver import Inbox, make_app

    if not secret_file.is_file():
        raise ConfigError("webhook-receiver", "--secret-file", str(secret_file), "a file with the signing secret")
    secret = secret_file.read_text().splitlines()[0].strip()
    app = make_app(secret, Inbox(out, _show_json if as_json else _show))
    uvicorn.run(app, host=host, port=port, log_level="warning")


async def _dispatch(settings: KafkaSettings) -> None:
    from ingest.runtime.signals import stop_event
    from stream.alerts.dispatcher import Dispatcher
    from stream.alerts.webhook import WebhookDeliverer

    stop, log = stop_event(), KafkaLog(settings, "dispatch-config")
    try:
        require_topics(await log.partitions())
        receivers = (await configstore.read(log)).receivers
    finally:
        await log.close()
    await Dispatcher(settings, receivers, WebhookDeliverer).run(stop)


def _show(entry: dict[str, Any]) -> None:
    data = entry["alert"]["data"]
    pictures = [e["url"] for e in data["evidence"]]
    again = "" if entry["first"] else " (again)"
    stamp = time.strftime("%H:%M:%S", time.localtime(entry["received_ns"] / 1e9))
    sys.stdout.write(f"{stamp} {data['severity']}: {data['summary']}{again} {' '.join(pictures[-1:])}\n")
    sys.stdout.flush()


def _show_json(entry: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(entry) + "\n")
    sys.stdout.flush()
