"""Replays: an alert that is written to the topic ``alerts`` again, for one receiver.

A replay is an ordinary record of the topic, with two headers. So it survives restarts like every other alert, and the
dispatcher that owns the partition delivers it. The alert keeps its id, so the receiver recognises it.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from ingest.contract import headers as h
from ingest.kafka.log import LogRecord, Outgoing

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
