"""The retry schedule of deliveries. Pure.

The schedule follows Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks): any 2xx is a success,
410 ends the attempts, and any other result is retried with growing pauses and jitter. A pause is at least as long as
the header ``Retry-After`` (RFC 9110, §10.2.3) requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

from ingest.contract.records.event import DeliveryState

GONE = 410
"""HTTP status ``410 Gone``, by which a receiver refuses all further attempts."""
JITTER_SHARE = 0.1
"""Maximum random extension of a pause, as a share of the pause. Random extensions spread the retries of deliveries
that failed at the same time."""
MAX_RETRY_AFTER_S = 24 * 3600.0
"""Maximum pause that a receiver can request by one ``Retry-After`` header, in seconds."""


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """The result of one delivery attempt: the HTTP status, or None with the reason why there is no status.

    ``accepted`` means success in a protocol that has no status.
    """

    status: int | None
    reason: str = ""
    retry_after: str = ""
    accepted: bool = False

    @property
    def is_success(self) -> bool:
        """Whether the receiver has accepted the alert."""
        return self.accepted or (self.status is not None and 200 <= self.status < 300)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of an alert after a delivery attempt: delivered, retrying, dead or skipped.

    ``pause_s`` is the time until the next attempt if the alert is retried.
    """

    state: DeliveryState
    pause_s: float = 0.0
    reason: str = ""


def verdict_after(
    result: AttemptResult, attempt: int, pauses_s: Sequence[float], chance: float, now_s: float
) -> Verdict:
    """Return the state of an alert after one attempt. ``attempt`` counts from 1.

    ``pauses_s`` has the pause before each attempt in seconds, ``chance`` is a random number in [0, 1), ``now_s`` is
    Unix time.
    """
    if result.is_success:
        return Verdict("delivered")
    reason = result.reason or f"status {result.status}"
    if result.status == GONE:
        return Verdict("dead", reason="gone")
    if attempt >= len(pauses_s):
        return Verdict("dead", reason=f"{reason} on the last of {attempt} attempts")
    pause_s = pauses_s[attempt] * (1.0 + JITTER_SHARE * chance)
    return Verdict("retrying", max(pause_s, asked_s(result.retry_after, now_s)), reason)


def asked_s(retry_after: str, now_s: float) -> float:
    """Return the pause that a receiver requests by ``Retry-After``, in seconds; 0 if the header is missing or
    unreadable."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max(0.0, moment.timestamp() - now_s), MAX_RETRY_AFTER_S)
    except (ValueError, OverflowError):  # not a date, or a year out of range
        return 0.0
