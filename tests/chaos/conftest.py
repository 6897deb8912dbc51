"""Fixture with a whole stack whose processes a test may kill."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from deploy.local.demo.run import DemoOptions, DemoOutcome, During, run_demo
from deploy.local.kafka.broker import Broker

RunStack = Callable[..., Awaitable[DemoOutcome]]


@pytest.fixture
def run_stack(own_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStack:
    """Return a function that runs the simulated demo on a private broker, with the work ``during`` beside it.

    With ``fused``, the engine node prepares the frames.
    """
    monkeypatch.delenv("SIGHTLINE_KAFKA", raising=False)

    async def run(seconds: float, during: During | None, *, fused: bool = False) -> DemoOutcome:
        return await run_demo(DemoOptions(seconds, tmp_path / "demo", fused=fused), during=during, broker=own_broker)

    return run
