"""Replays and test alerts: a replay is an alert that is written to the topic ``alerts`` again, for one receiver.

A replay is an ordinary record of the topic ``alerts``, with two additional headers. Because a replay is a record in
the log, it survives restarts like every other alert, and the dispatcher that owns the partition delivers it. A
replayed alert keeps its id, so that the receiver recognises the alert.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from ingest.contract import headers as h
from ingest.contract.records import Alert, AlertData
from ingest.kafka.log import LogRecord, Outgoing
from stream.events import rfc3339

REPLAY, ONLY = "sightline-replay", "sightline-only"
"""Kafka headers with the id of a replay, and with the name of the receiver that gets the replay."""


def replay_of(headers: Mapping[str, bytes]) -> tuple[str, str]:
    """Return the id and the receiver of a replay; two empty strings for an alert that is no replay."""
    replay, only = headers.get(REPLAY, b""), headers.get(ONLY, b"")
    if not replay or not only:
        return "", ""
    return replay.decode(errors="replace")[:100], only.decode(errors="replace")


def make_replay(record: LogRecord, receiver: str) -> Outgoing:
    """Return the record that sends an alert to one receiver again."""
    headers = {**record.headers, **h.CLOUD_EVENT, REPLAY: uuid.uuid4().hex.encode(), ONLY: receiver.encode()}
    return Outgoing(record.topic, record.partition, record.value, key=record.key, headers=headers)


def trial_alert(now_ns: int) -> Alert:
    """Return an alert with which a person tests a receiver. The test alert is about no camera and belongs to no
    incident."""
    trial = uuid.uuid4().hex
    data = AlertData(
        incident=f"trial-{trial}",
        event=f"trial-{trial}",
        rule="trial",
        severity="info",
        summary="Test alert: this receiver gets alerts of Sightline.",
        captured_ns=now_ns,
    )
    return Alert(
        id=f"msg_{trial}", source="/trial", type="sightline.trial", subject="trial", time=rfc3339(now_ns), data=data
    )
