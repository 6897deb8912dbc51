"""Finding: the result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check: subject (``what``), state, observation (``seen``) and advice (``mend``)."""

    what: str
    state: Literal["good", "poor", "bad"]
    seen: str
    mend: str = ""


def good(what: str, seen: str) -> Finding:
    """Return a finding about a subject that works and needs no action."""
    return Finding(what, "good", seen)


def poor(what: str, seen: str, mend: str) -> Finding:
    """Return a finding about a subject that works, but has a problem."""
    return Finding(what, "poor", seen, mend)


def bad(what: str, seen: str, mend: str) -> Finding:
    """Return a finding about a subject that does not work."""
    return Finding(what, "bad", seen, mend)
