"""`sightline dispatch` delivers alerts to receivers; `sightline webhook-receiver` is a receiver for trials."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.cli.common import AsJson, Kafka, Prefix, friendly, kafka_settings
from ingest.exceptions import ConfigError
from ingest.runtime.service import Service
from ingest.site import ReceiverConfig


@friendly
def dispatch(kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Deliver alerts to the receivers of the site until stopped, with a receipt for each attempt.

    Exits with 75 when Kafka is gone.
    """
    service = Service("dispatch", kafka_settings(kafka, prefix))
    raise typer.Exit(service.run(lambda stop: _dispatch(service, stop)))


@friendly
def webhook_receiver(
    secret_file: Annotated[Path, typer.Option(help="File with the signing secret (whsec_…).")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    out: Annotated[Path | None, typer.Option(help="Append each webhook to this file as a line of JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Receive webhooks, verify them with the standardwebhooks package, and print them."""
    import uvicorn

    from stream.alerts.receiver import Inbox, make_app

    if not secret_file.is_file():
        raise ConfigError(
            "webhook-receiver", "--secret-file", str(secret_file), "a file with the signing secret (whsec_…)"
        )
    secret = secret_file.read_text().splitlines()[0].strip()
    app = make_app(secret, Inbox(out, _show_json if as_json else _show))
    uvicorn.run(app, host=host, port=port, log_level="warning")


async def _dispatch(service: Service, stop: asyncio.Event) -> None:
    from stream.alerts.dispatcher import Dispatcher
    from stream.alerts.webhook import WebhookDeliverer

    async with service.open_log() as log:
        receivers = (await service.read_config(log)).of(ReceiverConfig)
    await Dispatcher(service.settings, receivers, WebhookDeliverer).run(stop)


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
