"""Finding: the result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check. ``what`` is the checked object, ``seen`` the observation, and ``advice`` the next step."""

    what: str
    state: Literal["good", "poor", "bad"]
    seen: str
    advice: str = ""


def good(what: str, seen: str) -> Finding:
    """Return a finding about a subject that works and needs no action."""
    return Finding(what, "good", seen)


def poor(what: str, seen: str, advice: str) -> Finding:
    """Return a finding about a subject that works, but has a problem."""
    return Finding(what, "poor", seen, advice)


def bad(what: str, seen: str, advice: str) -> Finding:
    """Return a finding about a subject that does not work."""
    return Finding(what, "bad", seen, advice)
