"""Growing pauses between restarts of a failing service or connection. Pure."""

from __future__ import annotations

from dataclasses import dataclass

BASE_S = 0.2
"""First pause before a restart, in seconds. The first pause is short, because most crashes do not recur at once, and
frames wait in Kafka until the service runs again."""
CAP_S = 10.0
"""Longest pause before a restart, in seconds. When the cause of a failure is gone, the service runs again after at
most this pause."""
LONG_SHARE = 0.1
"""Length of a pause in a long outage, as a share of the outage's length so far. With a pause of this share, waiting
makes an outage at most a tenth longer."""
STEADY_S = 5.0
"""Uptime after which a service counts as recovered, in seconds. After a recovery, the next failure begins with the
pause ``BASE_S`` again."""


def delay_s(failures: int, chance: float, base_s: float = BASE_S, cap_s: float = CAP_S) -> float:
    """Return the pause in seconds after ``failures`` consecutive failures (1 or more).

    The pause doubles with each failure, up to ``cap_s``. ``chance`` is a random number in [0, 1) that shortens the
    pause by up to half, so that services that failed together do not restart together.
    """
    doublings = min(failures - 1, 60)  # a larger exponent overflows a float, and the cap is reached long before
    return min(cap_s, base_s * 2.0**doublings) * (1.0 - chance / 2)


@dataclass
class Backoff:
    """Counts the consecutive failures of one service, which together form an outage.

    The pauses before restarts double from ``base_s`` to ``cap_s``. In a long outage the pauses grow to ``LONG_SHARE``
    of the outage's length, up to ``long_cap_s``.
    """

    base_s: float = BASE_S
    cap_s: float = CAP_S
    long_cap_s: float = 0.0
    failures: int = 0
    since_s: float | None = None

    @property
    def out(self) -> bool:
        """Whether an outage is in progress: the service has failed and has not recovered since."""
        return self.since_s is not None

    def failed(self, at_s: float, chance: float) -> float:
        """Count a failure. Return the pause before the next restart, in seconds."""
        self.failures += 1
        self.since_s = at_s if self.since_s is None else self.since_s
        grown_s = min(self.long_cap_s, LONG_SHARE * (at_s - self.since_s))
        return delay_s(self.failures, chance, self.base_s, max(self.cap_s, grown_s))

    def steady(self, started_s: float) -> float | None:
        """End the outage, because the service that started at ``started_s`` has recovered.

        Return the outage's length in seconds, None if there was no outage.
        """
        length = None if self.since_s is None else started_s - self.since_s
        self.failures, self.since_s = 0, None
        return length
