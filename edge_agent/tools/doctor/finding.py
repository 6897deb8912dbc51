"""What a look at one thing has shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """``what`` was looked at, how it is, what was seen, and what would mend it."""

    what: str
    state: Literal["good", "poor", "bad"]
    seen: str
    mend: str = ""


def good(what: str, seen: str) -> Finding:
    """Return that a thing is as it should be."""
    return Finding(what, "good", seen)


def poor(what: str, seen: str, mend: str) -> Finding:
    """Return that a thing works, and not as well as it should."""
    return Finding(what, "poor", seen, mend)


def bad(what: str, seen: str, mend: str) -> Finding:
    """Return that a thing does not work."""
    return Finding(what, "bad", seen, mend)
