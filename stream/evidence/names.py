"""Names of evidence files. A name depends only on the event, so that a repeated event replaces its own files. Pure.

A name is ``CAMERA/DAY/TIMEZ-EVENT-KIND.EXTENSION``, such as ``gate/2026-01-02/030405.678Z-4f2a…-original.jpg``. The
kind is ``original``, ``annotated``, ``clip`` or ``clip-boxes``. Day and time are those of the event, in UTC. Files
that earlier versions of Sightline stored have names without a time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from ingest.contract.identity import NAME_PATTERN

_NAME = re.compile(
    rf"(?P<subject>{NAME_PATTERN[1:-1]})/(?P<day>\d{{4}}-\d{{2}}-\d{{2}})/(?:(?P<time>\d{{6}}\.\d{{3}})Z-)?"
    r"(?P<event>[A-Za-z0-9][A-Za-z0-9._-]{0,127}?)-(?P<kind>original|annotated|clip|clip-boxes)\.(?P<extension>[a-z0-9]+)",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EvidenceName(NamedTuple):
    """The parts of a name. The event happened between ``first_ns`` and ``last_ns``, both in Unix ns and included.

    ``subject`` is the camera. The interval is the event's millisecond; for a file stored by an earlier version of
    Sightline, it is the event's day.
    """

    subject: str
    event: str
    kind: str
    first_ns: int
    last_ns: int


def stem(subject: str, time: str, event: str) -> str:
    """Return the name of an event's files up to the kind. ``time`` is RFC 3339 in UTC, as in a CloudEvent."""
    day, clock = time[:10], time[11:19].replace(":", "")
    fraction = time[20:-1] if time[19] == "." else ""
    return f"{subject}/{day}/{clock}.{fraction[:3]:0<3}Z-{event}"


def parse(name: str) -> EvidenceName | None:
    """Return the parts of a name; None for a name that is not the name of an evidence file."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    subject, day, clock, event, kind = found.group("subject", "day", "time", "event", "kind")
    try:
        first = datetime.strptime(f"{day} {clock or '000000.000'}", "%Y-%m-%d %H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None
    first_ns = (first - _EPOCH) // timedelta(microseconds=1) * 1000
    length_ns = 1_000_000 if clock else 86_400 * 10**9
    return EvidenceName(subject, event, kind, first_ns, first_ns + length_ns - 1)
