"""Tests of the verdict on dispatcher starts. ``python -m benchmarks.history`` measures dispatcher starts."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.history import faults


def measured(receipts: int, first_post_s: float = 3.0, peak_mb: float = 110.0, extra: int = 0) -> dict[str, Any]:
    """Return the figures of a slow first start and of three restarts."""
    start = {"first_post_s": first_post_s, "peak_mb": peak_mb}
    return {
        "receipts": receipts,
        "alerts": 300,
        "posts": 300 + extra,
        "posts_per_alert": {"1": 300 - extra} | ({"2": extra} if extra else {}),
        "starts": [{"first_post_s": 60.0, "peak_mb": 700.0}, start, start, start],
    }


@pytest.mark.parametrize(
    ("long", "wrong"),
    [
        (measured(400_000), []),
        (measured(400_000, extra=2), ["400000 receipts: 302 posts of 300 alerts"]),
        (measured(400_000, first_post_s=58.0), ["first_post_s of a restart: 3.0 without a history, 58.0 with one"]),
        (measured(400_000, peak_mb=674.0), ["peak_mb of a restart: 110.0 without a history, 674.0 with one"]),
    ],
)
def test_repeated_webhook_posts_and_a_start_slowed_by_a_long_history_are_reported(
    long: dict[str, Any], wrong: list[str]
) -> None:
    assert faults(measured(0), long) == wrong
