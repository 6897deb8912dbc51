"""Prometheus metrics of an agent. The caller passes the registry in which the metrics are registered."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from ingest.metrics import ConfigMetrics


class AgentMetrics:
    """Counters and gauges of one agent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge, counter = partial(Gauge, registry=registry), partial(Counter, registry=registry)
        self.config = ConfigMetrics(registry)
        self.captured = gauge("sightline_agent_captured", "Frames of this epoch", ["camera"])
        self.kept = counter("sightline_agent_kept_total", "Frames promised", ["camera"])
        self.expired = counter("sightline_agent_expired_total", "Records expired", ["camera"])
        self.restarts = counter("sightline_agent_restarts_total", "Restarts of captures", ["camera"])
        self.spooled = gauge("sightline_agent_spooled_bytes", "Bytes that wait in the spool", ["camera"])
        self.sent = counter("sightline_agent_sent_total", "Records acknowledged by Kafka")
        self.readings = counter("sightline_agent_readings_total", "Readings by outcome", ["sensor", "fate"])
        self.unclaimed = counter(
            "sightline_agent_unclaimed_readings_total", "Readings that belong to no sensor", ["source"]
        )
        self.source_restarts = counter(
            "sightline_agent_source_restarts_total", "Restarts of sensor sources", ["source"]
        )
        self.refused = counter("sightline_agent_refused_total", "Records that the link refused permanently")
        self.disk_trouble = gauge("sightline_agent_disk_trouble", "1 while the disk refuses writes")
        self.clock_offset = gauge(
            "sightline_agent_clock_offset_seconds", "Offset of the broker's clock from the local clock"
        )
        self.clock_error = gauge("sightline_agent_clock_error_seconds", "Maximum error of that offset")
