"""Build the CloudEvents that rules emit.

Pure. An event's id depends only on the event's cause, so two copies of one event have equal ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ingest.contract.records import Event, EventData
from stream.rules import Happening, Rule


def make_event(
    rule: Rule,
    happening: Happening,
    subject: str,
    cause: Sequence[object],
    captured_ns: int,
    *,
    number: int = 1,
    site: str,
    **data: Any,
) -> Event:
    """Return the event that reports ``happening``, a situation that a rule has recognised.

    ``subject`` is the name of the camera or sensor. ``cause`` identifies the incident among all incidents of the rule
    and subject, and ``number`` identifies the event within the incident. ``data`` has further fields of the event's
    body.
    """
    incident = event_id(subject, rule.name, *cause)
    return Event(
        id=event_id(incident, number),
        source=f"/{site}/{subject}" if site else f"/{subject}",
        type=rule.EVENT_TYPE,
        subject=subject,
        time=rfc3339(captured_ns),
        data=EventData(
            incident=incident,
            rule=rule.name,
            severity=rule.severity,
            incident_gap_s=rule.incident_gap_s,
            site=site,
            summary=happening.summary,
            details=dict(happening.details),
            captured_ns=captured_ns,
            **data,
        ),
    )


def event_id(*cause: object) -> str:
    """Return the id of an event or incident: the first 32 hexadecimal digits of the SHA-256 hash of its cause."""
    return hashlib.sha256("\x1f".join(map(str, cause)).encode()).hexdigest()[:32]


def rfc3339(unix_ns: int) -> str:
    """Return a Unix time in ns as RFC 3339 in UTC, to the millisecond."""
    stamp = datetime.fromtimestamp(unix_ns / 1e9, UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"
