"""What every service counts of the contract. The registry is passed in."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge


class ConfigMetrics:
    """How the ``config`` topic looks to one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Gauge(
            "sightline_config_refused_entries", "Entries of the config topic that cannot be used", registry=registry
        )
