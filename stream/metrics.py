"""Prometheus metrics of the stream processors, defined on a registry that the caller passes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ingest.contract.records import Forecast
from ingest.metrics import GroupMetrics

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)
SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0)
"""Histogram bounds for the processing time of one record in seconds. A record of sensor readings takes less than 1
ms, and a 4K frame for several pipelines takes more time than any other record."""


class StreamMetrics(GroupMetrics):
    """The metrics of one stage in one process. Each metric has the label ``stage``."""

    def __init__(self, registry: CollectorRegistry, stage: str) -> None:
        super().__init__(registry, "sightline_stream", "Records", {"stage": stage})

        def labelled(kind: type[_Metric], name: str, text: str, **options: Any) -> _Metric:
            return kind(f"sightline_stream_{name}", text, ("stage",), registry=registry, **options).labels(stage)

        self.records = labelled(Counter, "records_total", "Records fed")
        self.written = labelled(Counter, "written_total", "Records handed to the broker")
        self.written_bytes = labelled(Counter, "written_bytes_total", "Bytes of the values of these records")
        self.process = labelled(
            Histogram,
            "process_seconds",
            "Time a processor takes for one record, as the mean of the records that are processed together",
            buckets=SECONDS_BUCKETS,
        )
        self.waiting = labelled(Gauge, "waiting_records", "Records at the broker or in process that are not finished")


class DispatchMetrics(GroupMetrics):
    """The metrics of one dispatcher."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry, "sightline_dispatch", "Alerts")

        def own(kind: type[_Metric], name: str, text: str, labels: Sequence[str] = ()) -> _Metric:
            return kind(f"sightline_dispatch_{name}", text, labels, registry=registry)

        self.read_again = own(
            Counter,
            "read_again_total",
            "Alerts read from the log for an attempt, because too many wait for their receiver to be held in memory",
            ("receiver",),
        )
        self.waiting = own(Gauge, "waiting_alerts", "Alerts that wait for a receiver", ("receiver",))
        self.failing = own(Gauge, "receiver_failing", "1 while a receiver fails and is tried rarely", ("receiver",))
        self.disabled = own(Gauge, "receiver_disabled", "1 after a receiver has answered 410 (gone)", ("receiver",))


class SenseMetrics:
    """Metrics of sensor readings that are dropped or arrive too late for their window, and of restarts of windows.

    These metrics explain why a sensor causes no events, for example because its clock is wrong or its device is new.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._dropped = Counter(
            "sightline_sense_dropped_readings_total",
            "Readings that are ignored: repeat, old-epoch, suspect or out of range",
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
            "Windows restarted because the clock of the sensor was set back",
            ("sensor", "rule"),
            registry=registry,
        )

    def count(
        self, sensor: str, dropped: Mapping[str, int], late: Mapping[str, int], set_back: Mapping[str, int]
    ) -> None:
        """Add the counts of one record of readings: dropped readings by reason, late readings by rule, and restarts
        of windows by rule."""
        for counter, found in ((self._dropped, dropped), (self._late, late), (self._set_back, set_back)):
            for label, count in found.items():
                counter.labels(sensor, label).inc(count)


class ForecastMetrics:
    """Metrics of forecasts: their skill at one step ahead, the coverage of their intervals, and their drift."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"sightline_forecast_{name}", text, ("forecast",), registry=registry)

        self._ratio = gauge("mae_ratio", "Error of the last day divided by that of the seasonal naive forecast")
        self._covered = gauge("covered_ratio", "Share of the last day's values within their prediction interval")
        self._drifting = gauge("drifting", "1 while the errors are larger than in the training of the model")
        self._empty = Counter(
            "sightline_forecast_empty_total",
            "Forecasts without values, because too little was observed",
            ("forecast",),
            registry=registry,
        )

    def note(self, forecast: Forecast) -> None:
        """Set the metrics to the figures of a forecast."""
        self._drifting.labels(forecast.name).set(float(forecast.drifting))
        self._empty.labels(forecast.name).inc(0.0 if forecast.points else 1.0)
        if forecast.skill:
            self._covered.labels(forecast.name).set(forecast.skill[0].covered)
            if (ratio := forecast.skill[0].ratio) is not None:
                self._ratio.labels(forecast.name).set(ratio)

    def forget(self, name: str) -> None:
        """Remove the metrics of a forecast that is no longer configured."""
        for metric in (self._ratio, self._covered, self._drifting, self._empty):
            metric.remove_by_labels({"forecast": name})
