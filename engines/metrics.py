"""Prometheus metrics of an engine node."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ingest.metrics import GroupMetrics

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class NodeMetrics(GroupMetrics):
    """Counters and histograms of one node, registered in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "sightline_engine", "Batches")
        self.batches = Counter("sightline_engine_batches_total", "Batches read from the log", registry=registry)
        self.rows = Counter("sightline_engine_rows_total", "Regions classified", ["pipeline"], registry=registry)
        self.written = Counter(
            "sightline_engine_records_total", "Results and dead letters written", registry=registry
        )
        self.out_of_order = Counter(
            "sightline_engine_out_of_order_total",
            "Frames shed because a later frame of their epoch came before, per pipeline",
            ["camera"],
            registry=registry,
        )
        self.refused_models = Gauge(
            "sightline_engine_refused_models",
            "Pipelines whose wanted model version cannot be served; they keep their present version",
            registry=registry,
        )
        self.waiting = Gauge("sightline_engine_waiting_rows", "Regions waiting for an engine", registry=registry)
        self.infer = Histogram(
            "sightline_engine_infer_seconds",
            "Duration of one engine call, with decoding",
            buckets=_SECONDS,
            registry=registry,
        )
        self.transaction = Histogram(
            "sightline_engine_transaction_seconds", "Duration of one transaction", buckets=_SECONDS, registry=registry
        )
