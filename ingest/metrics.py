"""Metrics of the contract that every service exports. The caller passes the registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge


class ConfigMetrics:
    """Metrics of one process about the ``config`` topic."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Gauge(
            "sightline_config_refused_entries", "Entries of the config topic that cannot be used", registry=registry
        )
