"""Growing pauses between restarts of a failing service or connection. Pure."""

from __future__ import annotations

from dataclasses import dataclass

BASE_S = 0.2
"""First pause, in seconds. The first pause is short, because most crashes are accidents and frames wait in Kafka
meanwhile."""
CAP_S = 10.0
"""Longest pause, in seconds. A service that cannot start is started once per pause, and recovers within one pause."""
LONG_SHARE = 0.1
"""Pause in a long outage, as a share of the outage's length. Such a pause makes the outage at most a tenth longer."""
STEADY_S = 5.0
"""Uptime after which a service has recovered, in seconds. The next failure starts again from ``BASE_S``."""


def delay_s(failures: int, chance: float, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Return the pause in seconds after this number of consecutive failures (1 or more).

    The pause doubles with each failure, up to ``cap_s``. ``chance`` in [0, 1) shortens the pause by up to half, so
    that services that failed together do not restart together.
    """
    doublings = min(failures - 1, 60)  # a larger exponent overflows a float, and the cap is reached long before
    return min(cap_s, base_s * 2.0**doublings) * (1.0 - chance / 2)


@dataclass
class Backoff:
    """Consecutive failures of one service, which together form an outage. Pauses double from ``base_s`` to ``cap_s``.

    In a long outage the pauses grow to ``LONG_SHARE`` of the outage's length, up to ``long_cap_s``.
    """

    base_s: float = BASE_S
    cap_s: float = CAP_S
    long_cap_s: float = 0.0
    failures: int = 0
    since_s: float | None = None

    @property
    def out(self) -> bool:
        """Return whether an outage is in progress."""
        return self.since_s is not None

    def failed(self, at_s: float, chance: float) -> float:
        """Count a failure. Return the pause before the next start, in seconds."""
        self.failures += 1
        self.since_s = at_s if self.since_s is None else self.since_s
        grown_s = min(self.long_cap_s, LONG_SHARE * (at_s - self.since_s))
        return delay_s(self.failures, chance, self.base_s, max(self.cap_s, grown_s))

    def steady(self, started_s: float) -> float | None:
        """End the outage at the time of the successful start.

        Return the outage's length in seconds, None without an outage.
        """
        length = None if self.since_s is None else started_s - self.since_s
        self.failures, self.since_s = 0, None
        return length
