"""When the dispatcher may make the next attempt at a receiver: rate limit, circuit breaker, disabled receiver. Pure.

Times named ``now_s`` are Unix time in seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from stream.delivery.schedule import GONE, JITTER_SHARE, AttemptResult, asked_s

FAILURES = 10
"""Number of consecutive failed attempts that opens the circuit. A receiver that fails a third of all attempts at
random opens its circuit about once in 60,000 attempts."""
FIRST_PAUSE_S, LAST_PAUSE_S = 5.0, 60.0
"""First and longest pause of an open circuit, in seconds. After a pause, one attempt is made; each failure doubles
the next pause. A receiver that has recovered waits at most a minute for the next attempt."""
MAX_ASKED_S = 3600.0
"""Maximum pause of all attempts that one ``Retry-After`` header causes, in seconds."""
TOO_MANY, UNAVAILABLE = 429, 503
"""HTTP statuses whose ``Retry-After`` applies to all requests to the receiver (RFC 6585, §4; RFC 9110, §15.6.4)."""

CircuitState = Literal["closed", "open", "disabled"]


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """The circuit of a receiver has changed its state. ``after_s`` is the time in the previous state."""

    state: CircuitState
    after_s: float
    reason: str


class ReceiverThrottle:
    """Decides when an attempt at a receiver may begin.

    After ``FAILURES`` consecutive failures the circuit is open: one attempt is made after each pause, and no attempt
    in between, so that the waiting alerts do not use up their attempts. A receiver that answers 410 is disabled.
    ``max_per_minute`` limits the attempts; 0 sets no limit.
    """

    def __init__(self, max_per_minute: float, chance: Callable[[], float], now_s: float) -> None:
        self._per_s, self._chance = max_per_minute / 60.0, chance
        self._next_s = 0.0
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until_s = 0.0
        self._probing = False
        self._since_s = now_s
        self.state: CircuitState = "closed"

    @property
    def since(self) -> str:
        """The time at which the circuit entered its present state, as RFC 3339."""
        return datetime.fromtimestamp(self._since_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def wait_s(self, now_s: float) -> float:
        """Return the time in seconds until an attempt may begin; 0 if it may begin now, infinity while the result of
        the only allowed attempt is not known."""
        if self.state == "open" and self._probing:
            return float("inf")
        return max(0.0, self._next_s - now_s, self._open_until_s - now_s)

    def begin(self, now_s: float) -> bool:
        """Note that an attempt begins. Return whether this attempt is the only attempt that an open circuit
        allows."""
        probe = self._probing = self.state == "open"
        if self._per_s:
            self._next_s = max(self._next_s, now_s) + 1.0 / self._per_s
        return probe

    def end(self, result: AttemptResult | None, now_s: float, *, probe: bool) -> CircuitChange | None:
        """Note the result of an attempt, and return the change of the circuit's state if there is one.

        ``probe`` is the value that ``begin`` returned. ``result`` is None if no attempt was made.
        """
        if probe:
            self._probing = False
        if result is None:
            self._next_s -= 1.0 / self._per_s if self._per_s else 0.0
            return None
        if result.is_success:
            self._failures, self._pause_s, self._open_until_s = 0, FIRST_PAUSE_S, 0.0
            return self._change("closed", "", now_s)
        if result.status == GONE:
            return self._change("disabled", "status 410", now_s)
        if result.status in (TOO_MANY, UNAVAILABLE):
            asked = min(asked_s(result.retry_after, now_s), MAX_ASKED_S)
            self._open_until_s = max(self._open_until_s, now_s + asked)
        self._failures += 1
        if self.state == "disabled" or self._failures < FAILURES or (self.state == "open" and not probe):
            return None
        self._open_until_s = max(self._open_until_s, now_s + self._pause_s * (1.0 + JITTER_SHARE * self._chance()))
        self._pause_s = min(LAST_PAUSE_S, 2.0 * self._pause_s)
        return self._change("open", result.reason or f"status {result.status}", now_s)

    def _change(self, state: CircuitState, reason: str, now_s: float) -> CircuitChange | None:
        if state == self.state:
            return None
        change = CircuitChange(state, now_s - self._since_s, reason)
        self.state, self._since_s = state, now_s
        return change
