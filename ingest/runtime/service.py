"""The common frame of every service: logs, metrics port, stop signals, Kafka log, configuration and exit status."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry

from ingest.contract.topics import require_topics
from ingest.exceptions import ConfigError, Fenced, LogUnavailable, MemberIdle
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.log import Log
from ingest.kafka.settings import PLAINTEXT_ADVICE, PLAINTEXT_RISK, KafkaSettings
from ingest.metrics import ConfigMetrics
from ingest.runtime import eventloop, health, logs
from ingest.runtime.health import Health
from ingest.site.topic import store
from ingest.site.topic.view import Config, ConfigView, Validate, accept

_log = logs.get("ingest.service")

EXIT_FAILED = 70
"""Exit status after an error inside the service (EX_SOFTWARE of sysexits.h). The supervisor then starts the service
again."""
EXIT_AGAIN = 75
"""Exit status when Kafka is gone, another process has taken over, or the configuration has changed (EX_TEMPFAIL of
sysexits.h).

When started again, the service continues at its last commit.
"""


@dataclass(frozen=True)
class Service:
    """One service's process, from its start to its exit status.

    ``name`` appears in every log line and in the Kafka client id. All metrics of the process go into ``registry``,
    which is served for Prometheus on ``metrics_port``; 0 serves none. `/live` and `/ready` on the same port show
    ``health``. By default, the port accepts connections from this machine only, because the metrics name cameras and
    need no password.
    """

    name: str
    settings: KafkaSettings
    metrics_port: int = 0
    metrics_host: str = "127.0.0.1"
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)

    def run(self, work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> int:
        """Run ``work(stop)`` in a new event loop and return the exit status. Call this method in the main thread.

        SIGTERM, SIGINT and SIGHUP set ``stop``; ``work`` then finishes and returns. LogUnavailable and Fenced
        are logged and become ``EXIT_AGAIN``, MemberIdle becomes ``EXIT_FAILED``. Any other error propagates.
        """

        async def until_stopped() -> None:
            self.health.begin(asyncio.get_running_loop())
            await work(eventloop.stop_event())

        logs.configure(self.name)
        if exposed := self.settings.plaintext_hosts:
            _log.warning("broker_link_is_plaintext", brokers=exposed, risk=PLAINTEXT_RISK, advice=PLAINTEXT_ADVICE)
        self.serve_metrics()
        try:
            eventloop.run(until_stopped())
        except (Fenced, LogUnavailable) as error:
            _log.error("service_ended", error=str(error), kind=type(error).__name__)
            return EXIT_AGAIN
        except MemberIdle as error:
            _log.error("service_ended", error=str(error), kind=type(error).__name__)
            return EXIT_FAILED
        return 0

    def serve_metrics(self) -> WSGIServer | None:
        """Serve metrics and health in a thread. Return the server, None without a port.

        If the port is in use, log a warning and return None: the service then runs without metrics.
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
    async def open_log(self) -> AsyncIterator[KafkaLog]:
        """Yield an open log whose topics match the contract. Raise LogUnavailable or TopicMismatch."""
        async with KafkaLog(self.settings, f"{self.name}-{os.getpid()}") as log:
            require_topics(await log.partitions())
            yield log

    async def read_config(self, log: Log, validate: Validate = accept) -> Config:
        """Read the ``config`` topic to its end, and count its refused entries. Raise LogUnavailable.

        Services that run rules pass ``stream.rules.validated`` as ``validate``.
        """
        return await store.read(log, self._config_metrics, validate)

    async def follow_config(
        self, before: Config, on_change: Callable[[Config], None], validate: Validate = accept
    ) -> None:
        """Follow the ``config`` topic for ever, and pass on each configuration that differs from the last one.

        ``before`` is the configuration in force at first. ``on_change`` raises ConfigError to refuse a configuration;
        the refusal is logged. If the topic has lost all its entries, the configuration in force stays.
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
        await store.follow(lambda: KafkaLog(self.settings, client_id), ConfigView(before.entries, validate), changed)

    @functools.cached_property
    def _config_metrics(self) -> ConfigMetrics:
        return ConfigMetrics(self.registry)
