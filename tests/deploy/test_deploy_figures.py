"""What a run's report counts, whatever order the topics are read in."""

from __future__ import annotations

import random

import pytest

from deploy.local.figures import Figures, percentiles_ms, report
from ingest.ledger.balance import draw
from ingest.ledger.states import Books
from ingest.records import Alert, Delivery, Event, EventData
from stream.alerts.alert import make_alert

CAPTURED_NS = 1_800_000_000_000_000_000


def event(number: int, camera: str | None = "road", *, late: bool = False) -> Event:
    return Event(
        id=f"e{number}",
        source="/here/road",
        type="sightline.line.crossed",
        subject="road",
        time="2026-01-02T03:04:05Z",
        data=EventData(
            incident=f"i{number}", rule="r", camera=camera, summary="said", captured_ns=CAPTURED_NS, late=late
        ),
    )


def delivery(alert: Alert, state: str, after_ms: float, attempt: int = 1) -> Delivery:
    return Delivery(
        alert=alert.id,
        incident=alert.data.incident,
        receiver="r",
        state=state,  # type: ignore[arg-type]
        attempt=attempt,
        attempted_ns=CAPTURED_NS + round(after_ms * 1e6),
        captured_ns=CAPTURED_NS,
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_the_topics_does_not_matter(seed: int) -> None:
    events = [event(0), event(1), event(2, None), event(3, late=True)]
    alerts = [make_alert(e, ()) for e in events]
    took = (100.0, 300.0, 9_000.0, 60_000.0)  # the third waited for its window, the fourth in a spool
    receipts = [delivery(a, "delivered", ms) for a, ms in zip(alerts, took, strict=True)]
    receipts += [delivery(alerts[0], "delivered", 5_000.0, 2), delivery(alerts[1], "dead", 5_000.0, 2)]  # repeats
    figures = Figures()
    steps = [(figures.event, e) for e in events] + [(figures.alert, a) for a in alerts]
    in_order = [(figures.delivery, d) for d in receipts]
    mixed = steps * 2
    random.Random(seed).shuffle(mixed)
    at = random.Random(seed).randrange(len(mixed))
    for take, record in [*mixed[:at], *in_order, *mixed[at:]]:
        take(record)  # type: ignore[operator]
    assert sorted(figures.receipt_ms()) == [100.0, 300.0]
    assert figures.undelivered(1) == 0
    found = report(figures, draw(Books()).to_dict(), None)
    assert (found["events"], found["alerts"], found["deliveries"]) == (4, 4, {"delivered": 4, "dead": 0})
    assert found["latency_ms"]["capture_to_receipt"]["p50"] == 200.0
    assert found["cameras"] == {}


def test_nothing_has_no_percentiles() -> None:
    assert percentiles_ms([]) == {}
