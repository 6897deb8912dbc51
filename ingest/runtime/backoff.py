"""How long to wait before something that failed is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

BASE_S = 0.2
"""A crash that was an accident is over at once: its frames wait in Kafka meanwhile."""
CAP_S = 10.0
"""A service that cannot start costs a start every ten seconds, and comes back soon after its cause has gone."""
LONG_SHARE = 0.1
"""Pauses that grow with an outage make it a tenth longer at the most, which is not noticed."""
STEADY_S = 5.0
"""A service that has run for so long has recovered; the next failure starts again from ``BASE_S``."""


def delay_s(failures: int, chance: float, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Return the pause after that many failures in a row (1 or more), in seconds.

    It doubles up to the cap. ``chance`` in [0, 1) takes off up to half, so that services that went together do not
    come back together.
    """
    doublings = min(failures - 1, 60)  # a float holds no more, and the cap is long passed
    return min(cap_s, base_s * 2.0**doublings) * (1.0 - chance / 2)


@dataclass
class Backoff:
    """One service's failures in a row, and the outage that they make. Pauses double from ``base_s`` to ``cap_s``.

    In a long outage they grow on, up to ``long_cap_s``, to ``LONG_SHARE`` of what it has lasted.
    """

    base_s: float = BASE_S
    cap_s: float = CAP_S
    long_cap_s: float = 0.0
    failures: int = 0
    since_s: float | None = None

    @property
    def out(self) -> bool:
        """Tell whether an outage is open."""
        return self.since_s is not None

    def failed(self, at_s: float, chance: float) -> float:
        """Take note of a failure. Return how long to wait, in seconds."""
        self.failures += 1
        self.since_s = at_s if self.since_s is None else self.since_s
        grown_s = min(self.long_cap_s, LONG_SHARE * (at_s - self.since_s))
        return delay_s(self.failures, chance, self.base_s, max(self.cap_s, grown_s))

    def steady(self, started_s: float) -> float | None:
        """Take note that a start has lasted. Return how long the outage was that it ended, None if there was none."""
        length = None if self.since_s is None else started_s - self.since_s
        self.failures, self.since_s = 0, None
        return length
