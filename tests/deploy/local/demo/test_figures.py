"""Tests of the counts of a run. The counts do not depend on the order of reading, and take bounded memory."""

from __future__ import annotations

import gc
import random
import tracemalloc

import pytest

from deploy.local.demo.figures import RATE_WINDOW_S, Figures, report
from deploy.local.demo.latencies import RECENT
from deploy.local.demo.table import summary
from ingest.contract.records import Alert, Box, Delivery, Detection, Event, EventData, FrameRef, Result
from ingest.ledger.balance import compute_balance
from ingest.ledger.states import Ledger
from stream.alerts.alert import make_alert
from stream.alerts.incidents import end_alert
from stream.incidents.grouping import IncidentGrouper

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
def test_the_demo_report_does_not_depend_on_the_order_in_which_topics_are_read(seed: int) -> None:
    events = [event(0), event(1), event(2, None), event(3, late=True)]
    alerts = [make_alert(e, ()) for e in events]
    took = (100.0, 300.0, 9_000.0, 60_000.0)  # the third waits for its window, the fourth in a spool
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
    assert figures.undelivered(["r"]) == 0
    assert figures.undelivered(["r", "other"]) == 4
    found = report(figures, compute_balance(Ledger()).to_dict(), None)
    assert (found["events"], found["alerts"], found["deliveries"]) == (4, 4, {"delivered": 4, "dead": 0})
    assert found["latency_ms"]["capture_to_receipt"]["p50"] == 200.0
    assert found["cameras"] == {}


def test_the_demo_counts_incidents_by_severity_but_not_the_alerts_about_ended_incidents() -> None:
    grouper, figures = IncidentGrouper(), Figures()
    records = [one for number in range(3) for one in grouper.add(event(number), CAPTURED_NS, 0.0)]
    worse = records[-1].model_copy(update={"severity": "critical"})
    for one in (worse, *records, *grouper.ends_due(1e9)):
        figures.incident(one)
    figures.alert(end_alert(worse))
    found = report(figures, compute_balance(Ledger()).to_dict(), None)
    assert (found["incidents"], found["alerts"]) == ({"critical": 1}, 0)


def result(seq: int, latency_ms: float) -> tuple[Result, int]:
    """Return a result and its time of arrival. Consecutive results arrive one second apart."""
    finished_ns = CAPTURED_NS + seq * 1_000_000_000
    found = Result(
        camera="road",
        epoch=1,
        seq=seq,
        lane="live",
        pipeline="cars",
        pipelines=("cars",),
        captured_ns=finished_ns - round(latency_ms * 1e6),
        finished_ns=finished_ns,
        width=640,
        height=360,
        source=FrameRef("frames", 0, seq),
        outcome="empty",
    )
    return found, finished_ns


def test_the_counts_of_a_long_demo_take_no_more_memory_than_those_of_a_short_demo() -> None:
    figures = Figures()
    for seq in range(3_000):
        figures.result(*result(seq, 80.0 + seq % 40))
    gc.collect()
    tracemalloc.start()
    try:
        for seq in range(3_000, 30_000):
            figures.result(*result(seq, 80.0 + seq % 40))
        gc.collect()
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 500_000
    assert figures.results == 30_000
    assert figures.frames_per_second() == pytest.approx(1.0)
    assert figures.rate(figures.last_s) == pytest.approx((RATE_WINDOW_S + 1) / RATE_WINDOW_S)
    assert figures.result_ms.percentiles()["p50"] == pytest.approx(99.5, rel=0.006)
    assert len(figures.result_ms.recent) == RECENT


def test_the_result_rate_of_a_demo_is_zero_before_the_second_result() -> None:
    figures = Figures()
    assert (figures.frames_per_second(), figures.rate(0.0), figures.result_ms.percentiles()) == (0.0, 0.0, {})
    figures.result(*result(0, 5.0))
    assert figures.frames_per_second() == 0.0


def test_a_repeated_line_crossing_event_is_counted_once() -> None:
    figures = Figures()
    for number in (0, 1, 0):
        figures.event(event(number))
    assert len(figures.crossings()) == 2
    assert figures.cameras["road"].events == 2


def seen(seq: int, camera: str, *labels: str) -> tuple[Result, int]:
    found, at_ns = result(seq, 80.0)
    box = Box(0, 0, 10, 10)
    detections = tuple(Detection(box=box, label=label, class_id=0, score=0.9) for label in labels)
    return found.model_copy(update={"camera": camera, "outcome": "classified", "detections": detections}), at_ns


def test_the_demo_report_gives_a_hint_for_a_camera_without_detections() -> None:
    figures = Figures()
    for seq in range(420):
        figures.result(*seen(seq, "clip"))
    figures.result(*seen(0, "road", "car", "bus"))
    figures.result(*result(1, 80.0))  # nothing moved, so the model looked at nothing
    found = report(figures, compute_balance(Ledger()).to_dict(), None)
    hint = "clip: 0 detections in 420 results: is this model right for this view?"
    assert found["hints"] == [hint]
    assert found["detections"] == {"clip": 0, "road": 2}
    assert summary(found).splitlines()[-1] == hint
