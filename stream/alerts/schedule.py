"""When to try again. Pure.

Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks): any 2xx is a success, 410 means never
again, everything else is tried again on a growing schedule with jitter; ``Retry-After`` (RFC 9110, §10.2.3) is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Literal

GONE = 410
JITTER_SHARE = 0.1
"""Pauses are longer by up to this share, so that what failed together does not come back together."""
MAX_RETRY_AFTER_S = 24 * 3600.0
"""A receiver cannot put its alerts off for longer than a day at a time."""


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """What one attempt brought: a status, or None and why there was none."""

    status: int | None
    reason: str = ""
    retry_after: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an alert after an attempt. ``pause_s`` is set when it is tried again."""

    state: Literal["delivered", "retrying", "dead"]
    pause_s: float = 0.0
    reason: str = ""


def after(answer: AttemptResult, attempt: int, pauses_s: Sequence[float], chance: float, now_s: float) -> Verdict:
    """Return what follows on the ``attempt``-th answer, counted from 1.

    ``pauses_s`` has a pause before each attempt, ``chance`` is in [0, 1), ``now_s`` is Unix time.
    """
    if answer.status is not None and 200 <= answer.status < 300:
        return Verdict("delivered")
    reason = answer.reason or f"status {answer.status}"
    if answer.status == GONE:
        return Verdict("dead", reason="gone")
    if attempt >= len(pauses_s):
        return Verdict("dead", reason=f"{reason} at the last of {attempt} attempts")
    pause_s = pauses_s[attempt] * (1.0 + JITTER_SHARE * chance)
    return Verdict("retrying", max(pause_s, _asked_s(answer.retry_after, now_s)), reason)


def _asked_s(retry_after: str, now_s: float) -> float:
    """Return how long a receiver asks to be left alone; 0 when it does not, or not in a way that can be read."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(0.0, moment.timestamp() - now_s), MAX_RETRY_AFTER_S)
    except (ValueError, OverflowError):  # a year that no date has
        return 0.0
