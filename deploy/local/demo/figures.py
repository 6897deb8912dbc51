"""What a watcher of the topics has counted so far, and the report made from it. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from typing import Any

from deploy.local.demo.latencies import Latencies, percentiles_ms
from deploy.local.demo.truth import CrossingScore, LineCrossing
from ingest.contract.identity import LIVE
from ingest.contract.records import Alert, CameraStatus, Delivery, Event, Heartbeat, Result

RATE_WINDOW_S = 5.0
"""The live table shows frames per second over this long: calm enough to read, quick enough to see a stall."""
_RATE_RESULTS = 10_000
"""Of more than 2,000 results a second the table shows 2,000."""


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

    Results are counted, not kept, so that a run may last for days. Of an event and its alert a few words are kept,
    about a kilobyte in all: a repeat is recognised by them, and a crossing held against the truth.
    """

    cameras: dict[str, CameraFigures] = field(default_factory=lambda: defaultdict(CameraFigures))
    services: dict[str, tuple[float, str]] = field(default_factory=dict)
    events: dict[str, LineCrossing | None] = field(default_factory=dict)
    """By id: the line crossing that it tells of, if it does."""
    alerts: dict[str, bool] = field(default_factory=dict)
    """By id: whether it is about a live frame."""
    final: dict[tuple[str, str], str] = field(default_factory=dict)
    retries: int = 0
    dead_letters: int = 0
    result_ms: Latencies = field(default_factory=Latencies)
    receipts_ms: dict[tuple[str, str], float] = field(default_factory=dict)
    results: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    """When the first and the last result arrived, in Unix s; 0 before there is one."""
    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_RESULTS))

    def result(self, result: Result, now_ns: int) -> None:
        """Count one result that arrived at ``now_ns``."""
        camera = self.cameras[result.camera]
        camera.outcomes[result.outcome] += 1
        camera.labels.update(d.label for d in result.detections)
        self.results += 1
        self.last_s = now_ns / 1e9
        self.first_s = self.first_s or self.last_s
        self.recent_s.append(self.last_s)
        if result.lane == LIVE:
            camera.last_latency_ms = (now_ns - result.captured_ns) / 1e6
            self.result_ms.add(camera.last_latency_ms)

    def event(self, event: Event) -> None:
        """Count one event; a repeat overwrites itself."""
        if event.id not in self.events and event.data.camera:
            self.cameras[event.data.camera].events += 1
        self.events[event.id] = _crossing(event)

    def alert(self, alert: Alert) -> None:
        """Count one alert; a repeat overwrites itself."""
        self.alerts[alert.id] = bool(alert.data.camera) and not alert.data.late

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
        return sum(1 for at in self.recent_s if now_s - at <= RATE_WINDOW_S) / RATE_WINDOW_S

    def frames_per_second(self) -> float:
        """Return results per second from the first one to the last one."""
        span_s = self.last_s - self.first_s
        return (self.results - 1) / span_s if span_s else 0.0

    def undelivered(self, receivers: int) -> int:
        """Return how many alerts still want a final receipt from one of the receivers."""
        return len(self.alerts) * receivers - len(self.final)

    def receipt_ms(self) -> list[float]:
        """Return the latencies from capture to receipt of live frames' alerts."""
        return [ms for (alert, _), ms in self.receipts_ms.items() if self.alerts.get(alert)]

    def crossings(self) -> list[LineCrossing]:
        """Return the line crossings that the rules recognised."""
        return [crossing for crossing in self.events.values() if crossing]


def _crossing(event: Event) -> LineCrossing | None:
    data = event.data
    if event.type != "sightline.line.crossed":
        return None
    return LineCrossing(data.camera or "", str(data.details.get("direction", "")), data.captured_ns, data.label)


def report(figures: Figures, balance: dict[str, Any], truth: CrossingScore | None) -> dict[str, Any]:
    """Return the report of a run: the balance's totals, and what happened to events, alerts and receipts."""
    states = Counter(figures.final.values())
    totals = dict(balance["totals"])
    return {
        **totals,
        "events": len(figures.events),
        "alerts": len(figures.alerts),
        "deliveries": {"delivered": states["delivered"], "dead": states["dead"]},
        "latency_ms": {
            "capture_to_result": figures.result_ms.percentiles(),
            "capture_to_receipt": percentiles_ms(figures.receipt_ms()),
        },
        "frames_per_second": round(figures.frames_per_second(), 2),
        "cameras": balance["cameras"],
        "truth": truth.to_dict() if truth else None,
    }
