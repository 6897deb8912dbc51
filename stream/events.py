"""Ids and times of events. Pure. An id is a function of the cause, so a repeated event has the same id."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime


def event_id(*cause: object) -> str:
    """Return the id of an event or incident with this cause: the first 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256("\x1f".join(map(str, cause)).encode()).hexdigest()[:32]


def rfc3339(unix_ns: int) -> str:
    """Return a Unix time in ns as RFC 3339 in UTC, to the millisecond."""
    stamp = datetime.fromtimestamp(unix_ns / 1e9, UTC)
    return stamp.strftime("%Y-%m-%dT%H:%M:%S.") + f"{stamp.microsecond // 1000:03d}Z"
