"""Metrics of an agent. The registry is passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from ingest.metrics import ConfigMetrics


class AgentMetrics:
    """Counters and gauges of one agent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.config = ConfigMetrics(registry)
        self.captured = Gauge("sightline_agent_captured", "Frames of this epoch", ["camera"], registry=registry)
        self.kept = Counter("sightline_agent_kept_total", "Frames promised", ["camera"], registry=registry)
        self.expired = Counter("sightline_agent_expired_total", "Records expired", ["camera"], registry=registry)
        self.restarts = Counter(
            "sightline_agent_restarts_total", "Restarts of captures", ["camera"], registry=registry
        )
        self.spooled = Gauge(
            "sightline_agent_spooled_bytes", "Bytes that wait in the spool", ["camera"], registry=registry
        )
        self.sent = Counter("sightline_agent_sent_total", "Records acknowledged by Kafka", registry=registry)
        self.readings = Counter(
            "sightline_agent_readings_total",
            "Readings by outcome",
            ["sensor", "fate"],
            registry=registry,
        )
        self.unclaimed = Counter(
            "sightline_agent_unclaimed_readings_total",
            "Readings that belong to no sensor",
            ["source"],
            registry=registry,
        )
        self.source_restarts = Counter(
            "sightline_agent_source_restarts_total", "Restarts of sensor sources", ["source"], registry=registry
        )
        self.refused = Counter(
            "sightline_agent_refused_total", "Records that the link refused permanently", registry=registry
        )
        self.disk_trouble = Gauge(
            "sightline_agent_disk_trouble", "1 while the disk refuses writes", registry=registry
        )
        self.clock_offset = Gauge(
            "sightline_agent_clock_offset_seconds",
            "Offset of the broker's clock from the local clock",
            registry=registry,
        )
        self.clock_error = Gauge(
            "sightline_agent_clock_error_seconds", "Maximum error of that offset", registry=registry
        )
