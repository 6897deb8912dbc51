"""Fixture with a whole stack whose processes a test may kill."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from deploy.local.demo.command import DemoOptions, During, run_demo
from deploy.local.demo.run import DemoOutcome
from deploy.local.kafka.broker import Broker
from engines.repository.adopt import coco_labels
from tests.paths import ROOT

RunStack = Callable[[float, During | None], Awaitable[DemoOutcome]]


@pytest.fixture
def run_stack(own_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStack:
    """Return a function that runs the simulated demo on a private broker, with the work ``during`` beside it."""
    monkeypatch.delenv("SIGHTLINE_KAFKA", raising=False)
    options = DemoOptions(0.0, (), None, "", coco_labels(), tmp_path / "demo", ROOT / "engines" / "models")

    async def run(seconds: float, during: During | None) -> DemoOutcome:
        chosen = DemoOptions(seconds, *[getattr(options, name) for name in options.__slots__[1:]])
        return await run_demo(
            chosen, on_step=lambda _: None, on_tick=lambda *_: None, during=during, broker=own_broker
        )

    return run
