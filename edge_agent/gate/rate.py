"""A rate that is held on average. Pure; time comes with the frame."""

from __future__ import annotations

_EARLY = 0.15
"""A frame may come so much of an interval before it is due: one that the network or a busy machine has held up is
followed by one that comes soon after, and a camera that is slower than the rate should lose neither."""


class Rate:
    """At most so many frames a second; a rate of 0 is no limit."""

    def __init__(self, fps: float) -> None:
        self._interval_ns = 1e9 / fps if fps else 0.0
        self._early_ns = _EARLY * self._interval_ns
        self._taken_ns: int | None = None
        self._next_ns = 0.0

    def due(self, now_ns: int) -> bool:
        """Tell whether a frame may pass. After a clock was set back it starts anew."""
        return self._taken_ns is None or now_ns >= self._next_ns - self._early_ns or now_ns < self._taken_ns

    def take(self, now_ns: int) -> None:
        """Note that a frame has passed.

        The next one is due on from when this one was, so that the rate is held on average; but a camera that was
        away is not made up for.
        """
        first = self._taken_ns is None or now_ns < self._taken_ns
        behind = first or not -self._early_ns <= now_ns - self._next_ns < self._interval_ns
        self._next_ns = (now_ns if behind else self._next_ns) + self._interval_ns
        self._taken_ns = now_ns
