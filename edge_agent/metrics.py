"""What an agent measures. The registry is passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["AgentMetrics"]


class AgentMetrics:
    """Counters and gauges of one agent."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.captured = Gauge("sightline_agent_captured", "Frames of this epoch", ["camera"], registry=registry)
        self.kept = Counter("sightline_agent_kept_total", "Frames promised", ["camera"], registry=registry)
        self.expired = Counter("sightline_agent_expired_total", "Frames expired", ["camera"], registry=registry)
        self.restarts = Counter(
            "sightline_agent_restarts_total", "Captures started again", ["camera"], registry=registry
        )
        self.spooled = Gauge("sightline_agent_spooled_bytes", "Bytes that wait", ["camera"], registry=registry)
        self.sent = Counter("sightline_agent_sent_total", "Records acknowledged by Kafka", registry=registry)
