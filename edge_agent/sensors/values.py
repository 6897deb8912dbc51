"""Parsers for values and times in the formats that devices use.

Pure. The parsers accept any input without raising an error.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import datetime

from edge_agent.sensors.source import Reading
from ingest.contract.records import BY_HOST, BY_HOST_INSTEAD, BY_SOURCE, GOOD, SUSPECT
from ingest.runtime.clock import unix_ns

MAX_AHEAD_S = 5.0
"""Maximum time by which a device's clock may be ahead of the host's clock, in seconds. A clock that is synchronised
by NTP has an error below 5 s. A reading with a time further ahead than 5 s would close the time windows of rules too
early."""
MAX_BEHIND_S = 7 * 86400.0
"""Maximum age of a reading, in seconds. Old readings are allowed, because a data logger may deliver the readings of a
past outage. A time that is older than the retention of the topic `readings` most likely comes from a clock that was
never set."""
UNREADABLE_NS = 0
"""Unix time in ns that replaces an unreadable time. This time is in the year 1970, like the time of a clock that was
never set."""
_TOO_FAR = 1e20
_UNITS_PER_S = ((1e11, 1), (1e14, 10**3), (1e17, 10**6), (_TOO_FAR, 10**9))
"""Upper bound of a Unix time and number of units in a second, for each of the units s, ms, µs and ns. Read in its own
unit, each bound is a time in the year 5138; read in the next smaller unit, a time in the year 1973."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_SHOWN = 60
"""Maximum number of characters that an error message shows of an unreadable value."""
_GOOD_WORDS = (0, "0", "good", "ok")


def parse_reading(value: object, at: object = None, quality: object = 0) -> Reading:
    """Return a reading from a device's value, time and quality, each as text or as decoded JSON.

    A value that is not a finite number gives a reading without a value. Any quality except 0, ``good`` and ``ok``
    marks the reading as suspect.
    """
    found = number(value)
    if found is None:
        return Reading(None, problem=f"no finite number: {str(value)[:_SHOWN]!r}")
    word = quality.strip().lower() if isinstance(quality, str) else quality
    return Reading(found, parse_time(at), GOOD if word in _GOOD_WORDS else SUSPECT)


def number(text: object) -> float | None:
    """Return a value as a finite number, or None if the value is not a finite number.

    True counts as 1 and false as 0.
    """
    if isinstance(text, str):
        text = text.strip()  # also strips ASCII separators, as float() does not
        if not _NUMBER.fullmatch(text):  # float() would accept "1_0" and "nan" as well
            return None
    elif not isinstance(text, int | float):
        return None
    try:
        value = float(text)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def parse_json(text: str | bytes) -> object:
    """Return decoded JSON, or None if the text is not JSON."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


def at_path(found: object, path: str) -> object:
    """Return the element at a path of keys and indices joined by dots, or None if no such element exists.

    The whole path is first tried as one key, so that a key with dots in its name is found too.
    """
    if not path:
        return found
    if isinstance(found, Mapping) and path in found:
        return found[path]
    step, _, rest = path.partition(".")
    if isinstance(found, Mapping) and step in found:
        return at_path(found[step], rest)
    if isinstance(found, list) and step.isascii() and step.isdigit() and int(step[:9]) < len(found):
        return at_path(found[int(step[:9])], rest)
    return None


def parse_time(text: object) -> int | None:
    """Return a device's time in Unix ns, from ISO 8601 or a number in s, ms, µs or ns.

    A time in ISO 8601 without a UTC offset is read as UTC. Return None for an empty time, and ``UNREADABLE_NS`` for
    an unreadable time.
    """
    if text is None or text == "":
        return None
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        return UNREADABLE_NS
    try:
        return _unix_time(text)
    except (ValueError, OverflowError):
        return _iso_time(text) if isinstance(text, str) else UNREADABLE_NS


def reading_time(own_ns: int | None, now_ns: int) -> tuple[int, int]:
    """Return the time of a reading that arrives now, in Unix ns, and the clock that gave this time.

    The device's own time is used if that time is plausible, otherwise the time of arrival.
    """
    if own_ns is None:
        return now_ns, BY_HOST
    if -MAX_BEHIND_S * 1e9 <= own_ns - now_ns <= MAX_AHEAD_S * 1e9:
        return own_ns, BY_SOURCE
    return now_ns, BY_HOST_INSTEAD


def _unix_time(text: str | int | float) -> int:
    """Convert a number to Unix ns.

    Raise ValueError or OverflowError if the text is not a number or the number is too large.
    """
    value = float(text)
    if not abs(value) < _TOO_FAR:
        raise ValueError("the number is too large for a Unix time")
    per_s = next(units for bound, units in _UNITS_PER_S if abs(value) < bound)
    unit_ns = 10**9 // per_s
    try:
        if not isinstance(text, float):
            return int(text) * unit_ns  # a float cannot hold the digits of ns
    except ValueError:  # text with a fraction
        pass
    whole = int(value)
    return whole * unit_ns + round((value - whole) * unit_ns)


def _iso_time(text: str) -> int:
    try:
        return unix_ns(datetime.fromisoformat(text.strip()))
    except (ValueError, OverflowError):
        return UNREADABLE_NS
