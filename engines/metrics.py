"""Prometheus metrics of an engine node."""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ingest.metrics import GroupMetrics

_STAGES = {
    "queue": "Wait of one batch record for an engine",
    "copy": "Decoding of pictures, and writing of their pixels into the slot of one engine call",
    "compute": "Computation of one engine call, without its wait for earlier calls",
    "decode": "Decoding of the outputs of one engine call",
    "cascade": "All second models for one engine call: decoding of frames, cropping and computation",
}
_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class NodeMetrics(GroupMetrics):
    """Prometheus metrics of one engine node, registered in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "sightline_engine", "Batches")
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, buckets=_SECONDS, registry=registry)
        self.batches = counter("sightline_engine_batches_total", "Batches read from the log")
        self.rows = counter("sightline_engine_rows_total", "Regions classified", ["pipeline"])
        self.waiting = gauge("sightline_engine_waiting_rows", "Regions waiting for an engine")
        self.written = counter("sightline_engine_records_total", "Results and dead letters written")
        self.transaction = histogram("sightline_engine_transaction_seconds", "Duration of one transaction")
        self.infer = histogram("sightline_engine_infer_seconds", "Duration of one engine call, with decoding")
        self._stages = {
            stage: histogram(f"sightline_engine_{stage}_seconds", text, ["pipeline", "model"])
            for stage, text in _STAGES.items()
        }
        self.out_of_order = counter(
            "sightline_engine_out_of_order_total",
            "Frames shed because a later frame of their epoch came before, once for each of their pipelines",
            ["camera"],
        )
        self.shed = counter(
            "sightline_engine_shed_total",
            "Frames shed by the overload policy of their pipeline",
            ["pipeline", "reason"],
        )
        self.overload = gauge(
            "sightline_engine_overload_degree",
            "1 without overload; n of every-nth, or 2 while the lighter model classifies",
            ["pipeline"],
        )
        self.refused_models = gauge(
            "sightline_engine_refused_models",
            "Pipelines and second models whose wanted version cannot be served; they keep their present version",
        )
        self.stand_ins = gauge(
            "sightline_engine_stand_ins", "Pipelines that a CPU serves until their TensorRT plan is built"
        )
        self.attributes = counter(
            "sightline_engine_attributes_total",
            "Labels and embeddings of second models, and objects without one by reason",
            ["pipeline", "attribute", "outcome"],
        )
        self.shadow_frames = counter(
            "sightline_engine_shadow_frames_total",
            "Frames for a candidate model, by outcome: agree, differ, failed, or skipped without idle time",
            ["pipeline", "outcome"],
        )
        self.shadow_off = gauge(
            "sightline_engine_shadow_off",
            "1 for a pipeline whose candidate model was switched off after a failure",
            ["pipeline"],
        )

    def observe(self, stage: str, pipeline: str, model: str, seconds: float) -> None:
        """Add one measured time of a stage: ``queue``, ``copy``, ``compute``, ``decode`` or ``cascade``."""
        self._stages[stage].labels(pipeline, model).observe(seconds)
