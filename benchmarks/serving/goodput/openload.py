"""Open load: arrival times of a Poisson process, and figures of the responses. Pure; needs only the standard library.

The clients of all systems use this module, each client in an environment with different packages.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any


def arrivals_s(rate: float, seconds: float, seed: int) -> list[float]:
    """Return request times in seconds, from 0 to ``seconds``, at exponential intervals with mean ``1 / rate``."""
    chance, at_s, found = random.Random(seed), 0.0, []
    while (at_s := at_s + chance.expovariate(rate)) < seconds:
        found.append(at_s)
    return found


def load_figures(latencies_s: Sequence[float | None], seconds: float, bound_s: float) -> dict[str, Any]:
    """Return goodput and latency percentiles of one run of ``seconds``.

    A latency is the time from the planned arrival to the response, or None without a valid response. Goodput is the
    number of responses per second with a latency of at most ``bound_s``. Percentiles count a missing response as an
    infinite latency, and an infinite percentile is None. ``p99_answered_ms`` is the p99 of the received responses
    only.
    """
    known = sorted(math.inf if value is None else value for value in latencies_s)
    answered = [value for value in known if math.isfinite(value)]
    return {
        "requests": len(known),
        "offered_per_s": round(len(known) / seconds, 1),
        "goodput_per_s": round(sum(value <= bound_s for value in known) / seconds, 1),
        "answered": len(answered),
        "p50_ms": _percentile_ms(known, 0.5),
        "p99_ms": _percentile_ms(known, 0.99),
        "p99_answered_ms": _percentile_ms(answered, 0.99),
    }


def _percentile_ms(known: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile of sorted latencies in ms, or None if it is infinite."""
    if not known:
        return None
    value = known[max(0, math.ceil(share * len(known)) - 1)]
    return round(value * 1000, 1) if math.isfinite(value) else None
