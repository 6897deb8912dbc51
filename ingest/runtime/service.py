"""Code that every service shares: logging, metrics port, stop signals, connection to Kafka, configuration and exit
status."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry

from ingest.contract.topics import require_topics
from ingest.exceptions import ConfigError, Fenced, HostConflict, LogUnavailable, MemberIdle
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.outage import KafkaWatch, PatientLog
from ingest.kafka.settings import PLAINTEXT_ADVICE, PLAINTEXT_RISK, KafkaSettings
from ingest.metrics import ConfigMetrics
from ingest.runtime import eventloop, health, logs
from ingest.runtime.arenas import limit_arenas
from ingest.runtime.health import Health
from ingest.site.topic import store
from ingest.site.topic.view import Config, ConfigView, Validate, accept

_log = logs.get("ingest.service")

EXIT_FAILED = 70
"""Exit status after an error inside the service (EX_SOFTWARE of sysexits.h). A process supervisor restarts a service
that ends with this status."""
EXIT_AGAIN = 75
"""Exit status when Kafka is unreachable, another process has taken over the work or does not allow it, or the
configuration has changed (EX_TEMPFAIL of sysexits.h).

A service that is restarted after exit status ``EXIT_AGAIN`` continues at its last committed offsets.
"""
START_S = 60.0
"""Time in seconds that a service waits at its start until Kafka answers. Without this wait, the supervisor would
restart the service every few seconds during an outage. A longer wait would hide a wrong address for longer."""


@dataclass(frozen=True)
class Service:
    """Runs the process of one service, from its start to its exit status.

    ``name`` appears in every log line and in the Kafka client id. All metrics of the process go into ``registry``. An
    HTTP server on ``metrics_port`` serves the metrics to Prometheus; with port 0 there is no server. The paths
    `/live` and `/ready` of the metrics server show ``health``. By default, the metrics server accepts connections
    from the local host only, because the metrics contain camera names and need no password.
    """

    name: str
    settings: KafkaSettings
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)
    watch: KafkaWatch = field(default_factory=KafkaWatch)

    def run(self, work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
        """Run ``work(stop)`` in a new event loop and return the exit status. Call this method in the main thread.

        SIGTERM, SIGINT and SIGHUP set the event ``stop``, after which ``work`` must finish and return. If ``work``
        raises LogUnavailable, Fenced or HostConflict, log the error and return ``EXIT_AGAIN``. If ``work`` raises
        MemberIdle, log the error and return ``EXIT_FAILED``. Any other exception of ``work`` propagates to the
        caller.
        """

        async def until_stopped() -> None:
            self.health.begin(asyncio.get_running_loop())
            await work(eventloop.stop_event())

        limit_arenas()
        gc.freeze()  # imported modules live as long as the process, so that searches for cycles may skip them
        logs.configure(self.name)
        if exposed := self.settings.plaintext_hosts:
            _log.warning("broker_link_is_plaintext", brokers=exposed, risk=PLAINTEXT_RISK, advice=PLAINTEXT_ADVICE)
        self.serve_metrics()
        try:
            eventloop.run(until_stopped())
        except (Fenced, HostConflict, LogUnavailable) as error:
            _log.error("service_ended", error=str(error), kind=type(error).__name__)
            return EXIT_AGAIN
        except MemberIdle as error:
            _log.error("service_ended", error=str(error), kind=type(error).__name__)
            return EXIT_FAILED
        return 0

    def serve_metrics(self) -> WSGIServer | None:
        """Serve metrics and health in a thread. Return the server, or None if ``metrics_port`` is 0.

        If the port cannot be opened, log an error and return None, so that the service runs without metrics.
        """
        if not self.metrics_port:
            return None
        try:
            server = health.serve(self.metrics_host, self.metrics_port, self.registry, self.health)
        except OSError as error:
            advice = (
                "stop the process that listens there, or pass another --metrics-port or --metrics-host, and restart"
            )
            address = f"{self.metrics_host}:{self.metrics_port}"
            _log.error("metrics_not_served", address=address, error=str(error), advice=advice)
            return None
        threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
        return server

    @asynccontextmanager
    async def open_log(self, stop: asyncio.Event) -> AsyncIterator[KafkaLog]:
        """Connect to Kafka, check that its topics match the contract, and yield the open log.

        Raise LogUnavailable if Kafka does not answer within ``START_S`` or before ``stop`` is set, TopicMismatch if a
        topic does not match. While Kafka is unavailable later, reads and single writes of the log wait, and the
        service is not ready. If the topics do not match after an outage, set ``stop`` and raise TopicMismatch at the
        end of the context.
        """
        self.health.broker_ready_when(self.watch.unready_reason)
        process = os.getpid()
        async with (
            PatientLog(self.settings, f"{self.name}-{process}", self.watch) as log,
            self.watch.watching(
                lambda: KafkaLog(self.settings, f"{self.name}-watch-{process}"), stop, require_topics
            ),
        ):
            await self._first_answer(stop)
            require_topics(await self.watch.unless_stopped(stop, log.partitions()))
            yield log

    async def _first_answer(self, stop: asyncio.Event) -> None:
        """Wait until Kafka answers, because a restart of the service would not end an outage of Kafka."""
        answer, stopped = asyncio.create_task(self.watch.answer()), asyncio.create_task(stop.wait())
        await asyncio.wait({answer, stopped}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        answered = answer.done() and answer.result()
        for task in (answer, stopped):
            task.cancel()
        if not answered:
            raise LogUnavailable(self.watch.unready_reason() or "Kafka has not answered yet")

    async def read_config(self, log: Log, validate: Validate = accept) -> Config:
        """Read the ``config`` topic to its end, and set a metric to the number of refused entries. Raise
        LogUnavailable.

        Services that run rules pass ``stream.rules.validated`` as ``validate``.
        """
        return await store.read(log, self._config_metrics, validate)

    async def follow_config(
        self, before: Config, on_change: Callable[[Config], None], validate: Validate = accept
    ) -> None:
        """Follow the ``config`` topic for ever, and call ``on_change`` with each changed configuration.

        ``before`` is the configuration with which the service started. ``on_change`` may raise ConfigError to refuse
        a configuration; this method logs the refusal. If the topic is empty although nobody removed its entries, the
        service keeps the configuration in force.
        """

        async def changed(view: ConfigView) -> None:
            self._config_metrics.refused.set(len(view.config.refused))
            now = view.config
            if not now.entries and before.entries.keys() - view.removed:
                _log.warning("config_topic_empty", running=len(before.entries), fix="apply the site file again")
                return
            try:
                on_change(now)
            except ConfigError as error:
                _log.error("configuration_refused", error=str(error), running="the last good one")

        client_id = f"{self.name}-config-{os.getpid()}"
        await store.follow(
            lambda: KafkaLog(self.settings, client_id),
            ConfigView(before.entries, validate),
            changed,
            outage_logged=lambda: self.watch.out,
        )

    @functools.cached_property
    def _config_metrics(self) -> ConfigMetrics:
        return ConfigMetrics(self.registry)
