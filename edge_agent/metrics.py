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
            "sightline_agent_restarts_total", "Captures started again", ["camera"], registry=registry
        )
        self.spooled = Gauge("sightline_agent_spooled_bytes", "Bytes that wait", ["camera"], registry=registry)
        self.sent = Counter("sightline_agent_sent_total", "Records that the log has", registry=registry)
        self.readings = Counter(
            "sightline_agent_readings_total",
            "Readings, by what became of them",
            ["sensor", "fate"],
            registry=registry,
        )
        self.unclaimed = Counter(
            "sightline_agent_unclaimed_readings_total", "Readings that no sensor wants", ["source"], registry=registry
        )
        self.source_restarts = Counter(
            "sightline_agent_source_restarts_total", "Sensor sources started again", ["source"], registry=registry
        )
        self.refused = Counter(
            "sightline_agent_refused_total", "Records the link refuses for good", registry=registry
        )
        self.disk_trouble = Gauge("sightline_agent_disk_trouble", "1 while the disk takes nothing", registry=registry)
        self.clock_offset = Gauge(
            "sightline_agent_clock_offset_seconds", "How far the broker's clock is ahead of ours", registry=registry
        )
        self.clock_error = Gauge(
            "sightline_agent_clock_error_seconds", "How far off that offset may be", registry=registry
        )
