"""A device's own time of a reading: how it may be written, and whether it can be believed. Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from ingest.contract.records import BY_HOST, BY_HOST_INSTEAD, BY_SOURCE

MAX_AHEAD_S = 5.0
"""A clock that is kept by NTP is off by less; a reading from later on would close windows before their time."""
MAX_BEHIND_S = 7 * 86400.0
"""A logger may hand over an outage; what is older than `readings` keeps is a clock that was never set."""
_TOO_FAR = 1e20
_UNITS_PER_S = ((1e11, 1), (1e14, 10**3), (1e17, 10**6), (_TOO_FAR, 10**9))
"""Below the bound, a Unix time is in this unit: each bound is in the year 5138 in it, and in 1973 in the next."""


UNREADABLE_NS = 0
"""What a time that cannot be read is taken for: 1970, as of a clock that was never set."""


def read_time(said: object) -> int | None:
    """Return the Unix time in ns of what a device says: ISO 8601, or a number in s, ms, µs or ns.

    ISO 8601 without an offset is UTC. Return None when it says nothing, ``UNREADABLE_NS`` when that is no time.
    """
    if said is None or said == "":
        return None
    if isinstance(said, bool) or not isinstance(said, str | int | float):
        return UNREADABLE_NS
    try:
        return _number(said)
    except (ValueError, OverflowError):
        return _iso(said) if isinstance(said, str) else UNREADABLE_NS


def timed(own_ns: int | None, now_ns: int) -> tuple[int, int]:
    """Return the time of a reading that comes now, in Unix ns, and whose it is: the device's own if it can be so."""
    if own_ns is None:
        return now_ns, BY_HOST
    if -MAX_BEHIND_S * 1e9 <= own_ns - now_ns <= MAX_AHEAD_S * 1e9:
        return own_ns, BY_SOURCE
    return now_ns, BY_HOST_INSTEAD


def _number(said: str | int | float) -> int:
    """Raise ValueError or OverflowError for what is no number."""
    value = float(said)
    if not abs(value) < _TOO_FAR:
        raise ValueError("no time")
    per_s = next(units for bound, units in _UNITS_PER_S if abs(value) < bound)
    unit_ns = 10**9 // per_s
    try:
        if not isinstance(said, float):
            return int(said) * unit_ns  # a float has not the digits of ns
    except ValueError:  # as text with a fraction
        pass
    whole = int(value)
    return whole * unit_ns + round((value - whole) * unit_ns)


def _iso(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError):
        return UNREADABLE_NS
    return (since.days * 86400 + since.seconds) * 10**9 + since.microseconds * 1000
