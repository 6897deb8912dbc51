"""Counts the records on a stack's topics, and makes a report of the counts. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.local.demo.latencies import Latencies, percentiles_ms
from deploy.local.demo.truth import CrossingScore, LineCrossing
from ingest.contract.identity import LIVE
from ingest.contract.records import Alert, CameraStatus, Delivery, Event, Heartbeat, Incident, Result
from ingest.contract.records.event import SEVERITIES, Severity

RATE_WINDOW_S = 5.0
"""Window of the result rate in the live table, in seconds. The window is long enough for a readable rate, and short
enough to show a stall."""
_RATE_RESULTS = 10_000
"""Maximum number of arrival times kept for the rate. The table shows at most 2,000 results per second, because its
rate covers a window of 5 s."""


@dataclass
class CameraFigures:
    """Counts of one camera."""

    status: CameraStatus | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    events: int = 0
    last_latency_ms: float = 0.0


@dataclass
class Figures:
    """Counts of all records seen so far.

    Latencies cover live frames only, because the backlog after an outage is late by design. Latencies from capture to
    receipt exclude sensor readings, because readings wait until their time window ends.

    Results are only counted and not stored, so that memory does not grow in runs of days. About 1 kB per event is
    stored, to recognise repeats and to compare line crossings with the ground truth.
    """

    cameras: dict[str, CameraFigures] = field(default_factory=lambda: defaultdict(CameraFigures))
    services: dict[str, tuple[float, str]] = field(default_factory=dict)
    events: dict[str, LineCrossing | None] = field(default_factory=dict)
    """Line crossing that an event reports, by event id; None for an event of another type."""
    alerts: dict[str, bool] = field(default_factory=dict)
    """Whether an alert is about a live frame, by alert id."""
    incidents: dict[str, Severity] = field(default_factory=dict)
    """Severity of an incident, by incident id."""
    final: dict[tuple[str, str], str] = field(default_factory=dict)
    retries: int = 0
    dead_letters: int = 0
    result_ms: Latencies = field(default_factory=Latencies)
    receipts_ms: dict[tuple[str, str], float] = field(default_factory=dict)
    results: int = 0
    first_s: float = 0.0
    """Arrival time of the first result in Unix seconds, or 0 if no result has arrived."""
    last_s: float = 0.0
    """Arrival time of the last result in Unix seconds, or 0 if no result has arrived."""
    recent_s: deque[float] = field(default_factory=lambda: deque(maxlen=_RATE_RESULTS))

    @property
    def running(self) -> set[str]:
        """Names of the services whose last heartbeat has the state ``running``."""
        return {name for name, (_, state) in self.services.items() if state == "running"}

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
        """Count one event. Repeats of an event count once."""
        if event.id not in self.events and event.data.camera:
            self.cameras[event.data.camera].events += 1
        self.events[event.id] = _crossing(event)

    def alert(self, alert: Alert) -> None:
        """Count one alert. Repeats of an alert count once. Alerts of the end of an incident do not count, because the
        demo's receiver does not get them."""
        if alert.data.change != "end":
            self.alerts[alert.id] = bool(alert.data.camera) and not alert.data.late

    def incident(self, incident: Incident) -> None:
        """Store the severity of one incident, which never falls."""
        before = self.incidents.get(incident.id, incident.severity)
        self.incidents[incident.id] = max(before, incident.severity, key=SEVERITIES.index)

    def delivery(self, delivery: Delivery) -> None:
        """Count one delivery attempt."""
        if delivery.state == "retrying":
            self.retries += 1
            return
        key = (delivery.alert, delivery.receiver)
        if delivery.state == "delivered" and delivery.captured_ns:
            self.receipts_ms.setdefault(key, (delivery.attempted_ns - delivery.captured_ns) / 1e6)
        if self.final.get(key) != "delivered":  # a delivery stays delivered
            self.final[key] = delivery.state

    def dead_letter(self) -> None:
        """Count one dead letter."""
        self.dead_letters += 1

    def heartbeat(self, beat: Heartbeat, now_s: float) -> None:
        """Store the state of a service and the status of its cameras."""
        self.services[beat.service] = (now_s, beat.state)
        for status in beat.cameras:
            self.cameras[status.camera].status = status

    def rate(self, now_s: float) -> float:
        """Return results per second over the last ``RATE_WINDOW_S``."""
        return sum(1 for at in self.recent_s if now_s - at <= RATE_WINDOW_S) / RATE_WINDOW_S

    def frames_per_second(self) -> float:
        """Return results per second between the first and the last result."""
        span_s = self.last_s - self.first_s
        return (self.results - 1) / span_s if span_s else 0.0

    def undelivered(self, receivers: Collection[str]) -> int:
        """Return the number of missing final receipts. Each alert needs one final receipt per receiver."""
        return sum((alert, receiver) not in self.final for alert in self.alerts for receiver in receivers)

    def unseen(self) -> list[str]:
        """Return a hint for each camera whose classified frames have no detection."""
        return [
            f"{name}: 0 detections in {camera.outcomes['classified']} results: is this model right for this view?"
            for name, camera in sorted(self.cameras.items())
            if camera.outcomes["classified"] and not camera.labels.total()
        ]

    def receipt_ms(self) -> list[float]:
        """Return the latencies from capture to receipt, in ms, of alerts about live frames."""
        return [ms for (alert, _), ms in self.receipts_ms.items() if self.alerts.get(alert)]

    def crossings(self) -> list[LineCrossing]:
        """Return the line crossings that the rules detected."""
        return [crossing for crossing in self.events.values() if crossing]


def _crossing(event: Event) -> LineCrossing | None:
    data = event.data
    if event.type != "sightline.line.crossed":
        return None
    return LineCrossing(data.camera or "", str(data.details.get("direction", "")), data.captured_ns, data.label)


def _by_severity(severities: Iterable[Severity]) -> dict[str, int]:
    """Return the number of incidents by severity, the highest first."""
    counts = Counter(severities)
    return {severity: counts[severity] for severity in reversed(SEVERITIES) if counts[severity]}


def report(figures: Figures, balance: dict[str, Any], truth: CrossingScore | None) -> dict[str, Any]:
    """Return the report of a run: ledger totals, and counts of events, alerts and receipts."""
    states = Counter(figures.final.values())
    totals = dict(balance["totals"])
    return {
        **totals,
        "events": len(figures.events),
        "alerts": len(figures.alerts),
        "incidents": _by_severity(figures.incidents.values()),
        "deliveries": {"delivered": states["delivered"], "dead": states["dead"]},
        "latency_ms": {
            "capture_to_result": figures.result_ms.percentiles(),
            "capture_to_receipt": percentiles_ms(figures.receipt_ms()),
        },
        "frames_per_second": round(figures.frames_per_second(), 2),
        "detections": {name: camera.labels.total() for name, camera in sorted(figures.cameras.items())},
        "hints": figures.unseen(),
        "cameras": balance["cameras"],
        "truth": asdict(truth) if truth else None,
    }
