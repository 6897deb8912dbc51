"""What a watcher of the topics has counted so far, and the report made from it. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deploy.local.truth import Crossing, Score
from ingest.identity import LIVE
from ingest.records import Alert, CameraStatus, Delivery, Event, Heartbeat, Result

__all__ = ["CameraFigures", "Figures", "percentiles_ms", "report"]

RATE_WINDOW_S = 5.0
"""The live table shows frames per second over this long: calm enough to read, quick enough to see a stall."""


@dataclass
class CameraFigures:
    """One camera's counts."""

    status: CameraStatus | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    events: int = 0
    last_latency_ms: float = 0.0


@dataclass
class Figures:
    """Everything seen so far. Latencies are of the live lane only: a backlog is late by design.

    Those up to the receipt are of frames only: a window of readings waits for its end, also by design.
    """

    cameras: dict[str, CameraFigures] = field(default_factory=lambda: defaultdict(CameraFigures))
    services: dict[str, tuple[float, str]] = field(default_factory=dict)
    events: dict[str, Event] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    final: dict[tuple[str, str], str] = field(default_factory=dict)
    retries: int = 0
    dead_letters: int = 0
    result_ms: list[float] = field(default_factory=list)
    receipts_ms: dict[tuple[str, str], float] = field(default_factory=dict)
    finished_s: list[float] = field(default_factory=list)

    def result(self, result: Result, now_ns: int) -> None:
        """Count one result that arrived at ``now_ns``."""
        camera = self.cameras[result.camera]
        camera.outcomes[result.outcome] += 1
        camera.labels.update(d.label for d in result.detections)
        self.finished_s.append(now_ns / 1e9)
        if result.lane == LIVE:
            camera.last_latency_ms = (now_ns - result.captured_ns) / 1e6
            self.result_ms.append(camera.last_latency_ms)

    def event(self, event: Event) -> None:
        """Count one event; a repeat overwrites itself."""
        if event.id not in self.events and event.data.camera:
            self.cameras[event.data.camera].events += 1
        self.events[event.id] = event

    def alert(self, alert: Alert) -> None:
        """Count one alert; a repeat overwrites itself."""
        self.alerts[alert.id] = alert

    def delivery(self, delivery: Delivery) -> None:
        """Count one attempt to deliver."""
        if delivery.state == "retrying":
            self.retries += 1
            return
        key = (delivery.alert, delivery.receiver)
        if delivery.state == "delivered" and delivery.captured_ns:
            self.receipts_ms.setdefault(key, (delivery.attempted_ns - delivery.captured_ns) / 1e6)
        if self.final.get(key) != "delivered":  # nothing undoes it
            self.final[key] = delivery.state

    def heartbeat(self, beat: Heartbeat, now_s: float) -> None:
        """Take over what a service says of itself and its cameras."""
        self.services[beat.service] = (now_s, beat.state)
        for status in beat.cameras:
            self.cameras[status.camera].status = status

    def rate(self, now_s: float) -> float:
        """Return results per second over the last few seconds."""
        recent = sum(1 for at in self.finished_s[-10_000:] if now_s - at <= RATE_WINDOW_S)
        return recent / RATE_WINDOW_S

    def frames_per_second(self) -> float:
        """Return results per second from the first one to the last one."""
        if len(self.finished_s) < 2:
            return 0.0
        span = self.finished_s[-1] - self.finished_s[0]
        return (len(self.finished_s) - 1) / span if span else 0.0

    def undelivered(self, receivers: int) -> int:
        """Return how many alerts still want a final receipt from one of the receivers."""
        return len(self.alerts) * receivers - len(self.final)

    def receipt_ms(self) -> list[float]:
        """Return the latencies from capture to receipt of live frames' alerts."""
        found = ((self.alerts.get(alert), ms) for (alert, _), ms in self.receipts_ms.items())
        return [ms for alert, ms in found if alert and alert.data.camera and not alert.data.late]

    def crossings(self) -> list[Crossing]:
        """Return the line crossings that the rules recognised."""
        return [
            Crossing(e.data.camera or "", e.data.direction, e.data.captured_ns, e.data.label)
            for e in self.events.values()
            if e.type == "sightline.line.crossed"
        ]


def percentiles_ms(values: list[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in ms, rounded to a tenth; empty when there is nothing to say."""
    if not values:
        return {}
    p50, p95, p99 = np.percentile(np.asarray(values), [50, 95, 99])
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "p99": round(float(p99), 1)}


def report(figures: Figures, balance: dict[str, Any], truth: Score | None) -> dict[str, Any]:
    """Return the report of a run: the balance's totals, and what happened to events, alerts and receipts."""
    states = Counter(figures.final.values())
    totals = dict(balance["totals"])
    return {
        **totals,
        "events": len(figures.events),
        "alerts": len(figures.alerts),
        "deliveries": {"delivered": states["delivered"], "dead": states["dead"]},
        "latency_ms": {
            "capture_to_result": percentiles_ms(figures.result_ms),
            "capture_to_receipt": percentiles_ms(figures.receipt_ms()),
        },
        "frames_per_second": round(figures.frames_per_second(), 2),
        "cameras": balance["cameras"],
        "truth": truth.to_dict() if truth else None,
    }
