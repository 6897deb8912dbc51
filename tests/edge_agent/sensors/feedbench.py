"""Test bench of a feed with a spool of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from edge_agent.metrics import AgentMetrics
from edge_agent.sensors.factory import make_sources
from edge_agent.sensors.feed import SensorFeed
from edge_agent.sensors.sensor import Sensor
from edge_agent.sensors.source import SensorSource
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from edge_agent.spool.store import SpoolStore
from ingest.contract.codec import decode
from ingest.contract.records import EpochEnd, Heartbeat, Readings
from ingest.ledger.intervals import Cover
from ingest.runtime.clock import SystemClock
from ingest.site import DiskConfig, SensorConfig


class FeedBench:
    """One running feed. Waiting methods poll, because the awaited changes happen in other processes and threads."""

    def __init__(self, folder: Path, source: SensorSource, configs: Sequence[SensorConfig]) -> None:
        self.store = SpoolStore(folder / "spool.db", "agent")
        self.registry, self.source, clock = CollectorRegistry(), source, SystemClock()
        metrics = AgentMetrics(self.registry)
        self.spool = Spool(self.store, DiskConfig(), clock=clock, metrics=metrics)
        how: Any = {"on_kept": lambda: None, "clock": clock, "metrics": metrics}
        self.sensors = {config.name: Sensor(config, self.spool, **how) for config in configs}
        sensors = list(self.sensors.values())
        self.feed = SensorFeed(configs[0].source, source, sensors, chance=lambda: 0.99, clock=clock, metrics=metrics)
        self.task = asyncio.create_task(self.feed.run())

    async def until(self, done: Callable[[], object], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not done():
                assert not self.task.done(), self.task
                await asyncio.sleep(0.005)

    async def more(self, name: str, count: int = 3) -> None:
        """Wait for more readings of a sensor."""
        wanted = self.sensors[name].captured + count
        await self.until(lambda: self.sensors[name].captured >= wanted and self.sensors[name].state == "running")

    async def state(self, name: str, state: str) -> str:
        """Wait for a state, and return its reason."""
        await self.until(lambda: self.sensors[name].state == state)
        return self.sensors[name].reason

    async def reason(self, name: str, text: str) -> str:
        """Wait until the reason of a sensor contains a text, and return the reason."""
        await self.until(lambda: text in self.sensors[name].reason)
        return self.sensors[name].reason

    async def until_kept(self, name: str, done: Callable[[list[float]], object]) -> list[float]:
        """Wait for values in the spool, and return them. Read through the spool's thread, since the feed runs."""
        async with asyncio.timeout(60):
            while not done(found := self._values(name, await self.spool.others(0, 10_000))):
                await asyncio.sleep(0.02)
        return found

    async def stop(self) -> None:
        self.feed.stop()
        await asyncio.wait_for(self.task, 60)

    def kept(self, name: str) -> list[Readings]:
        return self._kept(name, self.store.others(0, 10_000))

    def values(self, name: str) -> list[float]:
        return self._values(name, self.store.others(0, 10_000))

    def _kept(self, name: str, rows: Sequence[Row]) -> list[Readings]:
        return [decode(Readings, row.record) for row in rows if row.kind == "readings" and row.name == name]

    def _values(self, name: str, rows: Sequence[Row]) -> list[float]:
        return [value for each in self._kept(name, rows) for value in each.values]

    def ends(self) -> dict[str, tuple[EpochEnd, dict[str, int]]]:
        """Return each sensor's epoch end, and the counts of readings withheld after the last kept reading."""
        found = {}
        for row in self.store.others(0, 10_000):
            if row.kind == "status":
                ledger = decode(Heartbeat, row.record).readings
                (end,) = ledger.ended
                found[end.camera] = end, dict(ledger.accounts[0].counts) if ledger.accounts else {}
        return found

    def withheld(self, name: str) -> dict[str, int]:
        """Return the withheld readings by reason. Fail unless each number is kept or withheld exactly once."""
        end, tail = self.ends()[name]
        counts, cover = dict(tail), Cover()
        for each in self.kept(name):
            cover.add(each.account.first if each.account else each.seq, each.last_seq)
            for reason, count in (each.account.counts if each.account else {}).items():
                counts[reason] = counts.get(reason, 0) + count
        if tail:
            cover.add(end.last - sum(tail.values()) + 1, end.last)
        assert list(cover.runs()) == [(0, end.last, 1)]
        return counts

    def figure(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@contextlib.asynccontextmanager
async def fed(folder: Path, *configs: SensorConfig, source: SensorSource | None = None) -> AsyncIterator[FeedBench]:
    """Run a feed of sensors that share a connection. Stop the feed at the end if the feed still runs."""
    if source is None:
        ((source, _),) = make_sources(configs, SystemClock())
    bench = FeedBench(folder, source, configs)
    try:
        yield bench
    finally:
        bench.task.cancel()
        await asyncio.wait({bench.task})
        await bench.spool.close()
