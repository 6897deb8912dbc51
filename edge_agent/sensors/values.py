"""What a device writes for a value, to a reading. Pure, and never raises whatever the device says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from edge_agent.sensors.source import Reading
from edge_agent.sensors.times import read_time
from ingest.contract.records import GOOD, SUSPECT

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?", re.ASCII)
_SHOWN = 60
"""So much of what could not be read is told."""
_GOOD_WORDS = (0, "0", "good", "ok")


def reading(value: object, at: object = None, quality: object = 0) -> Reading:
    """Return a reading of what a device says of its value, time and quality, each as text or as JSON has it.

    A value that is no finite number makes a reading without one. Any other quality than 0, ``good`` or ``ok`` is
    doubt.
    """
    found = number(value)
    if found is None:
        return Reading(None, problem=f"no finite number: {str(value)[:_SHOWN]!r}")
    word = quality.strip().lower() if isinstance(quality, str) else quality
    return Reading(found, read_time(at), GOOD if word in _GOOD_WORDS else SUSPECT)


def number(said: object) -> float | None:
    """Return a value as a finite number; true and false are 1 and 0. None when it is none."""
    if isinstance(said, str):
        said = said.strip()  # which takes away separators of ASCII too, as float() does not
        if not _NUMBER.fullmatch(said):  # float() would take "1_0" and "nan" as well
            return None
    elif not isinstance(said, int | float):
        return None
    try:
        value = float(said)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def read_json(text: str | bytes) -> object:
    """Return what JSON says, None when it is no JSON."""
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found


def at_path(found: object, path: str) -> object:
    """Return what is at a path of keys and indices joined by dots, None when there is nothing.

    A key that has dots itself is found as a whole first.
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
