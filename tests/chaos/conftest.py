"""Fixture with a whole stack whose processes a test may kill."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import tomli_w

from deploy.local.demo.run import SHIPPED_MODELS, DemoOptions, DemoOutcome, During, run_demo
from deploy.local.demo.site import simulated_site
from deploy.local.kafka.broker import Broker
from engines.repository.store import Repository
from ingest.site import ReceiverConfig

RunStack = Callable[..., Awaitable[DemoOutcome]]
SMALL = {"width": 320, "height": 180}
"""Picture size of the stacks whose crossings are not compared with the truth. Half the size takes a third less of the
processor, and the number of records stays the same."""


@pytest.fixture
def run_stack(own_broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStack:
    """Return a function that runs the simulated demo on a private broker, with the work ``during`` beside it.

    With ``fused``, the engine node prepares the frames. With ``small``, the pictures have the size ``SMALL``, and the
    outcome does not compare the crossings with the truth.
    """
    monkeypatch.delenv("SIGHTLINE_KAFKA", raising=False)

    async def run(seconds: float, during: During | None, *, fused: bool = False, small: bool = False) -> DemoOutcome:
        site = small_site(tmp_path / "small.toml") if small else None
        options = DemoOptions(seconds, tmp_path / "demo", site=site, fused=fused)
        return await run_demo(options, during=during, broker=own_broker)

    return run


def small_site(path: Path) -> Path:
    """Write the demo's site with small pictures, without its receiver, which a demo adds to every site."""
    manifest = Repository(SHIPPED_MODELS).open("regions").manifest
    site = simulated_site(manifest, ReceiverConfig(name="unused", url="http://127.0.0.1:1/", secret_file=path))
    cameras = tuple(camera.model_copy(update=SMALL) for camera in site.cameras)
    site = site.model_copy(update={"cameras": cameras, "receivers": ()})
    path.write_text(tomli_w.dumps(site.model_dump(mode="json", exclude_none=True)))
    return path
