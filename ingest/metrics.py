"""Prometheus metrics that several services export. The caller passes the registry that collects the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge

_Metric = TypeVar("_Metric", Counter, Gauge)


class ConfigMetrics:
    """Metrics of one process about the ``config`` topic."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.refused = Gauge(
            "sightline_config_refused_entries", "Entries of the config topic that cannot be used", registry=registry
        )


class GroupMetrics:
    """Metrics of one member of a consumer group. The names of the metrics begin with ``prefix``.

    ``records`` is the plural noun for the group's records in the metrics' help texts. All metrics have the given
    labels.
    """

    def __init__(
        self, registry: CollectorRegistry, prefix: str, records: str, labels: Mapping[str, str] | None = None
    ) -> None:
        def own(kind: type[_Metric], name: str, text: str) -> _Metric:
            metric = kind(f"{prefix}_{name}", text, tuple(labels or ()), registry=registry)
            return metric.labels(**labels) if labels else metric

        self.expired_unread = own(
            Counter, "expired_unread_total", f"{records} that retention deleted before this group had read them"
        )
        self.topic_recreated = own(
            Counter, "topic_recreated_total", "Starts at the beginning of a topic that was created again"
        )
        self.idle_member = own(
            Gauge, "idle_member", "1 while this member has no partition although others have several, or no one any"
        )
