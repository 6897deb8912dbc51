"""Test rig: cameras with a spool and without a broker, and the records of their epochs."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from edge_agent.camera.camera import Camera
from edge_agent.metrics import AgentMetrics
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from edge_agent.spool.store import SpoolStore
from ingest.contract.codec import decode
from ingest.contract.records import EpochEnd, Frame, Heartbeat, WithheldInterval
from ingest.ledger.intervals import Cover
from ingest.runtime.backoff import Backoff
from ingest.runtime.clock import Deadline, SystemClock
from ingest.site import CameraConfig, DiskConfig

WAIT_S = 40.0
_PAGE = 100_000


@dataclass
class Epoch:
    """Records of one epoch."""

    frames: list[Frame] = field(default_factory=list)
    accounts: list[WithheldInterval] = field(default_factory=list)
    end: EpochEnd | None = None

    @property
    def withheld(self) -> Counter[str]:
        """Number of withheld frames by reason."""
        total: Counter[str] = Counter()
        for account in self.accounts:
            total.update(account.counts)
        return total

    def require_whole(self) -> None:
        """Fail unless every frame number up to the last is kept or withheld exactly once."""
        assert self.end is not None, "an epoch was never closed"
        cover = Cover()
        for frame in self.frames:
            cover.add(frame.seq, frame.seq)
        for account in self.accounts:
            cover.add(account.first, account.last)
        assert not cover.overlaps()
        assert not cover.holes(0, self.end.last)
        assert cover.last == self.end.last


class Rig:
    """Cameras that run as in an agent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.store = SpoolStore(folder / "spool.db", "rig")
        self._metrics = AgentMetrics(CollectorRegistry())
        self.spool = Spool(self.store, DiskConfig(), clock=SystemClock(), metrics=self._metrics)
        self.cameras: dict[str, Camera] = {}

    def add(
        self, config: CameraConfig, *, base_s: float = 0.05, cap_s: float = 0.2, truth_folder: Path | None = None
    ) -> Camera:
        """Add a camera with pauses of ``base_s`` to ``cap_s`` between starts."""
        self.cameras[config.name] = Camera(
            config,
            self.spool,
            truth_folder=truth_folder,
            state_folder=self._folder / "capture",
            on_kept=lambda: None,
            chance=random.Random(0).random,
            clock=SystemClock(),
            metrics=self._metrics,
            backoff=Backoff(base_s=base_s, cap_s=cap_s),
        )
        return self.cameras[config.name]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all cameras, and stop them cleanly at the end."""
        tasks = [asyncio.create_task(camera.run()) for camera in self.cameras.values()]
        try:
            yield
        finally:
            for camera in self.cameras.values():
                camera.stop()
            await asyncio.gather(*tasks)

    @functools.cached_property
    def _kept_rows(self) -> list[Row]:
        """All kept frames. The spool settles frames on a lane when it reads them, and does not return them again."""
        rows: list[Row] = []
        while page := self.store.settle_live(0, _PAGE):  # each page has at most ``READ_BYTES``
            rows += page
        return rows

    def epochs(self, name: str) -> dict[int, Epoch]:
        """Return the records of a camera in the spool, by epoch. Call this method after all cameras have ended."""
        found: dict[int, Epoch] = {}
        for row in self._kept_rows:
            if row.name == name:
                frame = decode(Frame, row.record)
                epoch = found.setdefault(frame.epoch, Epoch())
                epoch.frames.append(frame)
                epoch.accounts += [frame.account] if frame.account else []
        for row in self._other_rows():
            beat = decode(Heartbeat, row.record)
            for end in beat.ended:
                if end.camera == name:
                    found.setdefault(end.epoch, Epoch()).end = end
            for account in beat.accounts:
                if account.camera == name:
                    found.setdefault(account.epoch, Epoch()).accounts.append(account)
        return found

    def _other_rows(self) -> Iterator[Row]:
        after_id = 0
        while page := self.store.others(after_id, _PAGE):
            yield from page
            after_id = page[-1].id

    def close(self) -> None:
        """Close the spool. Call this method after all cameras have ended."""
        self.store.close()


async def until(done: Callable[[], bool], event: str, seconds: float = WAIT_S) -> float:
    """Wait until a condition holds. Return the elapsed time in s. ``event`` names the condition in the error."""
    clock = SystemClock()
    started_s, deadline = clock.monotonic(), Deadline.after(seconds)
    while not done():
        assert not deadline.passed, f"{event} did not happen within {seconds:.0f} s"
        await asyncio.sleep(0.02)
    return clock.monotonic() - started_s


async def flows(camera: Camera, frames: int = 3) -> float:
    """Wait until a camera has kept ``frames`` more frames. Return the elapsed time in s."""
    epoch, wanted = camera.epoch, camera.kept + frames
    return await until(lambda: camera.kept >= wanted, f"{frames} more frames of {camera.config.name} ({epoch})")
