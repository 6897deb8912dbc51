"""Alerts as the benchmarks of the dispatcher write them to the topic ``alerts``."""

from __future__ import annotations

from ingest.contract.codec import encode_json
from ingest.contract.records import Alert, AlertData
from ingest.contract.topics import ALERTS, partition_for
from ingest.kafka.log import Outgoing


def numbered_alert(benchmark: str, number: int, captured_ns: int = 0) -> Alert:
    """Return the alert ``alert-NUMBER``; no two alerts belong to one incident. ``captured_ns`` is a Unix time in
    ns."""
    data = AlertData(
        incident=f"{benchmark}-{number}",
        rule=benchmark,
        summary=benchmark,
        event=f"event-{number}",
        captured_ns=captured_ns,
    )
    return Alert(
        id=f"alert-{number}",
        source=f"/{benchmark}",
        type="sightline.alert",
        subject=benchmark,
        time="2026-11-30T12:00:00Z",
        data=data,
    )


def alert_record(alert: Alert, partitions: int) -> Outgoing:
    """Return the record of an alert for a topic with a number of partitions."""
    partition = partition_for(alert.data.incident, partitions)
    return Outgoing(ALERTS, partition, encode_json(alert), key=alert.data.incident.encode())
