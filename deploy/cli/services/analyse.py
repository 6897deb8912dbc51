"""`sightline analyse` and `sightline sense`: events out of results and readings."""

from __future__ import annotations

from deploy.cli.common import Kafka, Prefix, friendly, kafka_settings
from deploy.cli.services.stages import Instance, MetricsPort, serve_stage
from ingest.contract.topics import EVENTS
from ingest.kafka.log import Log
from ingest.runtime import logs
from ingest.site.topic import store as configstore


@friendly
def analyse(metrics_port: MetricsPort = 0, instance: Instance = "", kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Track objects and apply the rules until told to stop. Exits with 70 after an error, 75 when Kafka is gone."""
    from prometheus_client import CollectorRegistry

    from ingest.metrics import ConfigMetrics
    from stream.analyse.stage import AnalyseStage

    registry = CollectorRegistry()

    async def make(log: Log) -> AnalyseStage:
        config = await configstore.read(log, ConfigMetrics(registry))
        return AnalyseStage(config, (await log.partitions())[EVENTS])

    logs.configure("analyse")
    serve_stage(make, kafka_settings(kafka, prefix), metrics_port, instance, registry)


@friendly
def sense(metrics_port: MetricsPort = 0, instance: Instance = "", kafka: Kafka = "", prefix: Prefix = "") -> None:
    """Clean readings and watch their bounds until told to stop. Exits with 70 after an error, 75 without Kafka."""
    from prometheus_client import CollectorRegistry

    from ingest.metrics import ConfigMetrics
    from stream.metrics import SenseMetrics
    from stream.sense.stage import SenseStage

    registry = CollectorRegistry()

    async def make(log: Log) -> SenseStage:
        config = await configstore.read(log, ConfigMetrics(registry))
        return SenseStage(config, (await log.partitions())[EVENTS], SenseMetrics(registry))

    logs.configure("sense")
    serve_stage(make, kafka_settings(kafka, prefix), metrics_port, instance, registry)
