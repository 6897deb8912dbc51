"""What the stream processors count, for Prometheus. The registry is passed in."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
"""From a sensor's column (under a millisecond) to a 4K frame for several pipelines."""


class StreamMetrics:
    """The figures of one process; every one has the label ``stage``."""

    def __init__(self, registry: CollectorRegistry, stage: str) -> None:
        label = ("stage",)
        self.records = Counter("sightline_stream_records_total", "Records fed", label, registry=registry).labels(
            stage
        )
        self.written = Counter(
            "sightline_stream_written_total", "Records handed to the broker", label, registry=registry
        ).labels(stage)
        self.written_bytes = Counter(
            "sightline_stream_written_bytes_total", "Their values' size", label, registry=registry
        ).labels(stage)
        self.process = Histogram(
            "sightline_stream_process_seconds",
            "Time a processor takes for one record",
            label,
            buckets=SECONDS_BUCKETS,
            registry=registry,
        ).labels(stage)
        self.waiting = Gauge(
            "sightline_stream_waiting_records",
            "Records read or readable, and not done with",
            label,
            registry=registry,
        ).labels(stage)


class SenseMetrics:
    """Readings that change nothing: so a sensor falls silent whose clock was set back, or whose device is another."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._dropped = Counter(
            "sightline_sense_dropped_readings_total",
            "Readings that do not count: repeat, old-epoch, suspect or out of range",
            ("sensor", "reason"),
            registry=registry,
        )
        self._late = Counter(
            "sightline_sense_late_readings_total",
            "Readings that came after their window was closed",
            ("sensor", "rule"),
            registry=registry,
        )
        self._set_back = Counter(
            "sightline_sense_clock_set_back_total",
            "Windows begun anew because the sensor's clock was set back",
            ("sensor", "rule"),
            registry=registry,
        )

    def count(
        self, sensor: str, dropped: Mapping[str, int], late: Mapping[str, int], set_back: Mapping[str, int]
    ) -> None:
        """Add what one run of readings brought: dropped by reason, late and set back by rule."""
        for counter, found in ((self._dropped, dropped), (self._late, late), (self._set_back, set_back)):
            for what, count in found.items():
                counter.labels(sensor, what).inc(count)
