"""The services of package `stream`: its four stages, `dispatch`, and a `webhook-receiver` for trials."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.cli.common import (
    LOOPBACK,
    MODELS_VARIABLE,
    AsJson,
    Evidence,
    Instance,
    Kafka,
    MetricsHost,
    MetricsPort,
    Prefix,
    friendly,
    kafka_settings,
)
from ingest.contract.topics import ALERTS, EVENTS, FORECASTS, MEASURES, SIGNALS
from ingest.exceptions import ConfigError
from ingest.kafka.log import Log
from ingest.runtime.service import Service
from ingest.site import ReceiverConfig
from ingest.site.topic.view import Validate, accept

if TYPE_CHECKING:
    from stream.alerts.stage import AlertStage
    from stream.analyse.stage import AnalyseStage
    from stream.delivery.clients.guard import DeliveryPolicy
    from stream.prepare.stage import PrepareStage
    from stream.runner.loop import StageFactory
    from stream.sense.forecast.model import ForecastModel, ModelSource
    from stream.sense.stage import SenseStage

LATE_NICENESS = 10
"""Niceness of a process that prepares late frames. On a busy machine live frames come first, and late frames still
make progress."""

HttpsOnly = Annotated[bool, typer.Option("--https-only", help="Refuse every receiver whose address is not https.")]
Deny = Annotated[
    list[str] | None,
    typer.Option(
        "--deny",
        metavar="NETWORK|NAME",
        help="Never connect to this network, IP address or host name (`*` allowed). May be repeated.",
    ),
]


class Lane(StrEnum):
    """Which frames a worker prepares: live frames, or the backlog of outages."""

    LIVE = "live"
    LATE = "late"


@friendly
def prepare(
    lane: Annotated[Lane, typer.Option(help="live: frames as they are captured. late: the backlog of outages.")],
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    instance: Instance = "",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Decode, denoise and batch frames until stopped.

    Exits with 70 after an error, and with 75 if Kafka cannot be reached.
    """
    import cv2

    from stream.prepare.stage import PrepareStage

    service = Service(f"prepare-{lane.value}", kafka_settings(kafka, prefix), metrics_port, metrics_host)

    async def make(log: Log) -> PrepareStage:
        return PrepareStage(lane.value, await service.read_config(log))

    if lane is Lane.LATE:
        os.nice(LATE_NICENESS)
    cv2.setNumThreads(1)  # partitions are prepared in parallel already
    _serve(service, make, instance)


@friendly
def analyse(
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    instance: Instance = "",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Track objects and apply the rules until stopped.

    Rules of the type `behaviour` read their models from the folder in `SIGHTLINE_MODELS`.
    Exits with 70 after an error, and with 75 if Kafka cannot be reached.
    """
    from stream.analyse.stage import AnalyseStage, runnable

    service = Service("analyse", kafka_settings(kafka, prefix), metrics_port, metrics_host)

    async def make(log: Log) -> AnalyseStage:
        config, partitions = await service.read_config(log, runnable), await log.partitions()
        measures, signals = partitions[MEASURES], partitions[SIGNALS]
        return AnalyseStage(config, partitions[EVENTS], measure_partitions=measures, signal_partitions=signals)

    _serve(service, make, instance, runnable)


@friendly
def sense(
    models: Annotated[
        Path | None,
        typer.Option(
            envvar=MODELS_VARIABLE, help="Folder of the model repository, for forecasts.", show_default=False
        ),
    ] = None,
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    instance: Instance = "",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Clean sensor readings, apply the rules of sensors, and forecast measures until stopped.

    Exits with 70 after an error, and with 75 if Kafka cannot be reached.
    """
    from stream.metrics import ForecastMetrics, SenseMetrics
    from stream.rules import validated
    from stream.sense.stage import Forecasting, SenseStage, no_models

    service = Service("sense", kafka_settings(kafka, prefix), metrics_port, metrics_host)

    async def make(log: Log) -> SenseStage:
        config, partitions = await service.read_config(log, validated), await log.partitions()
        metrics, signals = SenseMetrics(service.registry), partitions[SIGNALS]
        source = forecast_models(models) if models else no_models
        forecasting = Forecasting(source, ForecastMetrics(service.registry), partitions[FORECASTS])
        return SenseStage(
            config,
            partitions[EVENTS],
            metrics,
            signal_partitions=signals,
            forecasting=forecasting,
            measure_partitions=partitions[MEASURES],
        )

    _serve(service, make, instance, validated)


@friendly
def alerts(
    context: typer.Context,
    evidence: Evidence = "",
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    instance: Instance = "",
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Store the evidence pictures of each event and raise the event's alert, until stopped.

    Exits with 70 after an error, and with 75 if Kafka cannot be reached. The subcommands list, acknowledge and replay
    alerts, and test receivers.
    """
    if context.invoked_subcommand:
        return
    if not evidence:
        raise typer.BadParameter("expected a folder for the evidence pictures", param_hint="--evidence")
    from stream.alerts.lettering import require_font
    from stream.alerts.stage import STORE_REQUEST_S, AlertStage
    from stream.evidence.location import open_store

    require_font()
    store = open_store(evidence, STORE_REQUEST_S)

    async def make(log: Log) -> AlertStage:
        return AlertStage(store, (await log.partitions())[ALERTS])

    _serve(Service("alerts", kafka_settings(kafka, prefix), metrics_port, metrics_host), make, instance)


@friendly
def dispatch(
    https_only: HttpsOnly = False,
    deny: Deny = None,
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = LOOPBACK,
    kafka: Kafka = "",
    prefix: Prefix = "",
) -> None:
    """Deliver alerts to the receivers of the site until stopped, and write a receipt for each attempt.

    Exits with 75 if Kafka cannot be reached.
    """
    from stream.delivery.clients.guard import DeliveryPolicy

    policy = DeliveryPolicy.of(deny or (), https_only=https_only)
    service = Service("dispatch", kafka_settings(kafka, prefix), metrics_port, metrics_host)
    raise typer.Exit(service.run(lambda stop: _dispatch(service, policy, stop)))


@friendly
def webhook_receiver(
    secret_file: Annotated[Path, typer.Option(help="File with the signing secret (whsec_…) or public key (whpk_…).")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    out: Annotated[Path | None, typer.Option(help="Append each webhook to this file as a line of JSON.")] = None,
    as_json: AsJson = False,
) -> None:
    """Receive webhooks, verify their signatures with the standardwebhooks package, and print the webhooks."""
    import uvicorn

    from stream.delivery.clients.receiver import Inbox, make_app, read_secret

    expected = "a file with the signing secret (whsec_…) on its first line"
    try:
        app = make_app(read_secret(secret_file), Inbox(out, lambda entry: _show(entry, as_json)))
    except (OSError, ValueError) as error:  # an unreadable, malformed or empty secret
        raise ConfigError("webhook-receiver", "--secret-file", str(secret_file), f"{expected} ({error})") from None
    uvicorn.run(app, host=host, port=port, log_level="warning")


def _serve(service: Service, make: StageFactory, instance: str, validate: Validate = accept) -> None:
    from stream.runner.loop import serve

    raise typer.Exit(service.run(lambda stop: serve(service, make, stop, instance, validate)))


def forecast_models(folder: Path) -> ModelSource:
    """Return the source of the forecast models in a model repository. The source loads a model version once and
    returns it again at later calls."""
    from engines.exceptions import EngineError
    from engines.repository.store import Repository
    from stream.exceptions import ForecastModelUnusable
    from stream.sense.forecast.model import ForecastModel

    repository, loaded = Repository(folder), dict[str, ForecastModel]()

    def source(name: str) -> ForecastModel:
        try:
            model, version = repository.resolve(name)
            key = f"{model}@{version}"
            if key not in loaded:
                loaded[key] = ForecastModel(repository.open(model, version).path, key)
        except EngineError as error:
            raise ForecastModelUnusable(str(error)) from None
        return loaded[key]

    return source


async def _dispatch(service: Service, policy: DeliveryPolicy, stop: asyncio.Event) -> None:
    from ingest.kafka.membership import MemberGuard
    from stream.delivery.clients.service import make_deliverer
    from stream.delivery.dispatcher import Dispatcher
    from stream.delivery.progress import GROUP
    from stream.metrics import DispatchMetrics

    async with service.open_log(stop) as log:
        receivers = (await service.watch.unless_stopped(stop, service.read_config(log))).of(ReceiverConfig)
        metrics = DispatchMetrics(service.registry)
        make = partial(make_deliverer, policy=policy)
        dispatcher = Dispatcher(service.settings, receivers, make, metrics=metrics, watch=service.watch)
        service.health.ready_when(dispatcher.unready_reason)
        guard = MemberGuard(log, GROUP, (ALERTS,), dispatcher.client_id, metrics.idle_member)
        async with guard.watching(stop):
            await dispatcher.run(stop)


def _show(entry: dict[str, Any], as_json: bool) -> None:
    if as_json:
        line = json.dumps(entry)
    else:
        data = entry["alert"]["data"]
        pictures = [e["url"] for e in data["evidence"]]
        again = "" if entry["first"] else " (again)"
        missing = f"no picture: {data['evidence_missing']}" if data.get("evidence_missing") else ""
        stamp = time.strftime("%H:%M:%S", time.localtime(entry["received_ns"] / 1e9))
        line = f"{stamp} {data['severity']}: {data['summary']}{again} {' '.join(pictures[-1:])}{missing}"
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
