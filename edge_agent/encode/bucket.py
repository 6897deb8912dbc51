"""Token buckets: how many bytes may be spent now. Pure; time is passed in."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.site import EncodeConfig

DAY_S = 86_400.0
DAY_BURST_SHARE = 0.25
"""Of a day's budget may be saved up, in a quiet night say. The rest is what flows in over a day, so that no 24 hours
ever cost more than the budget."""
START_S = 60.0
"""A bucket starts with as much as flows in within this time, and not full. It is given once: a capture that is begun
again and again goes on with what is in its purse."""
MAX_HORIZON_S = 1800.0
"""What a night has saved goes to the next half hour in which something moves."""
MAX_SHARE = 0.7
"""Of what is left, in one frame: the size of the next one is known by experience only."""


@dataclass
class Bucket:
    """``rate`` bytes a second flow in, up to ``capacity``: in ``T`` seconds at most capacity + rate × T flow out."""

    rate: float
    capacity: float
    left: float
    at_s: float | None = None

    @property
    def horizon_s(self) -> float:
        """Within about this time what has been saved is spent, when frames keep coming."""
        return min(self.capacity / self.rate / 2, MAX_HORIZON_S)

    def share(self, interval_s: float) -> float:
        """Return how many bytes the next frame may be, when frames come every ``interval_s``."""
        then = min(self.capacity, self.left + self.rate * interval_s)
        return then * min(interval_s / self.horizon_s, MAX_SHARE)

    def flow(self, now_s: float) -> None:
        """Let in what has come since the last time. A clock that goes back lets in nothing."""
        if self.at_s is not None:
            self.left = min(self.capacity, self.left + max(0.0, now_s - self.at_s) * self.rate)
        self.at_s = now_s if self.at_s is None else max(self.at_s, now_s)


def buckets(config: EncodeConfig) -> list[Bucket]:
    """Return the buckets of a camera's budgets: by the second, by the day, both or none."""
    made = []
    if config.bytes_per_s:
        made.append(_bucket(float(config.bytes_per_s), config.bytes_per_s * config.burst_s))
    if config.bytes_per_day:
        burst = config.bytes_per_day * DAY_BURST_SHARE
        made.append(_bucket((config.bytes_per_day - burst) / DAY_S, burst))
    return made


def _bucket(rate: float, capacity: float) -> Bucket:
    return Bucket(rate, capacity, min(capacity, rate * START_S))
