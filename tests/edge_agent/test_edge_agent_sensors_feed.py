"""A connection and its sensors in the agent: outages are told once, epochs end with their tail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from edge_agent.exceptions import SourceUnusable, SpoolError
from edge_agent.metrics import AgentMetrics
from edge_agent.sensors.feed import Feed
from edge_agent.sensors.sensor import Sensor
from edge_agent.sensors.source import Reading, Sink
from edge_agent.spool.spool import Spool
from ingest.clock import SystemClock
from ingest.codec import decode
from ingest.records import EpochEnd, Heartbeat, Readings
from tests.edge_agent.listener import sensor


class Scripted:
    """A source that does what a test tells it to, one step after the other."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[Callable[[Sink], None]] = asyncio.Queue()
        self.runs = 0

    async def run(self, sink: Sink) -> None:
        self.runs += 1
        while True:
            (await self.steps.get())(sink)

    def give(self, name: str, value: float | None) -> None:
        self.steps.put_nowait(lambda sink: sink.take(name, Reading(value, problem="" if value else "garbled")))

    def fail(self, error: Exception) -> None:
        def step(_: Sink) -> None:
            raise error

        self.steps.put_nowait(step)


class Bench:
    """A feed of two sensors on a spool of its own, and what has come of it."""

    def __init__(self, folder: Path, **values: Any) -> None:
        self.spool = Spool(folder / "spool.db")
        self.registry = CollectorRegistry()
        self.source = Scripted()
        self.thread = ThreadPoolExecutor(1)
        self.changed = asyncio.Event()
        metrics = AgentMetrics(self.registry)
        self.sensors = [
            Sensor(
                sensor(name, "simulated:t", **{"max_delay_s": 0.02} | values),
                self.spool,
                self.on_disk,
                instance="agent",
                on_kept=self.changed.set,
                clock=SystemClock(),
                metrics=metrics,
            )
            for name in ("a", "b")
        ]
        self.feed = Feed(
            "simulated:t", self.source, self.sensors, chance=lambda: 0.99, clock=SystemClock(), metrics=metrics
        )
        self.task = asyncio.create_task(self.feed.run())

    async def on_disk(self, method: Callable[..., Any], *args: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.thread, method, *args)

    async def until(self, done: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not done():
                assert not self.task.done(), self.task
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        self.feed.stop()
        await asyncio.wait_for(self.task, 20)

    def kept(self, name: str) -> list[Readings]:
        rows = [row for row in self.spool.others(0, 1000) if row.kind == "readings" and row.name == name]
        return [decode(Readings, row.record) for row in rows]

    def ends(self) -> dict[str, tuple[EpochEnd, dict[str, int]]]:
        found = {}
        for row in self.spool.others(0, 1000):
            if row.kind == "status":
                ledger = decode(Heartbeat, row.record).readings
                (end,) = ledger.ended
                found[end.camera] = end, dict(ledger.accounts[0].counts) if ledger.accounts else {}
        return found

    def figure(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def bench(**values: Any) -> Bench:
        made.append(Bench(tmp_path, **values))
        return made[-1]

    yield bench
    for each in made:
        each.thread.shutdown()
        each.spool.close()


async def test_a_reading_is_kept_in_time_though_no_other_comes(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.source.give("a", 1.0)
    await bench.until(lambda: bench.sensors[0].kept == 1)
    assert bench.sensors[0].state == "running"
    await bench.stop()
    assert [each.values for each in bench.kept("a")] == [(1.0,)]
    assert not bench.kept("b")


async def test_epochs_end_cleanly_and_with_their_tail(make: Callable[..., Bench]) -> None:
    bench = make(max_delay_s=60.0)
    bench.source.give("a", 1.0)
    bench.source.give("a", None)
    await bench.until(lambda: bench.sensors[0].captured == 2)
    assert (bench.sensors[0].state, bench.sensors[0].reason) == ("running", "unusable: garbled")
    await bench.stop()
    assert [each.values for each in bench.kept("a")] == [(1.0,)], "what was gathered is promised at the end"
    (a, a_tail), (b, b_tail) = (bench.ends()[name] for name in ("a", "b"))
    assert (a.last, a.clean, a_tail) == (1, True, {"unusable": 1})
    assert (b.last, b.clean, b_tail) == (-1, True, {})
    assert not bench.spool.unfinished("readings")


async def test_an_outage_is_told_once_at_its_beginning_and_once_at_its_end(make: Callable[..., Bench]) -> None:
    with capture_logs() as logs:
        bench = make()
        bench.source.give("a", 1.0)
        await bench.until(lambda: bench.sensors[0].captured == 1)
        for attempt in range(3):
            bench.source.fail(SourceUnusable(f"unplugged {attempt}"))
        await bench.until(lambda: bench.source.runs == 4)
        status = bench.sensors[0].status([])
        assert (status.state, status.reason, status.captured) == ("down", "unplugged 2", 2)
        bench.source.give("a", 2.0)
        await bench.until(lambda: bench.sensors[0].captured == 3)
        assert (bench.sensors[0].state, bench.sensors[0].reason, bench.sensors[1].state) == ("running", "", "down")
        await bench.stop()
    told = [(line["event"], line["sensor"]) for line in logs if line["event"].startswith("sensor")]
    assert sorted(told) == [("sensor back", "a"), ("sensor lost", "a"), ("sensor lost", "b")]
    (account,) = [each.account.counts for each in bench.kept("a") if each.account]
    assert account == {"outage": 1}
    assert bench.ends()["b"][1] == {"outage": 1}
    assert bench.figure("sightline_agent_source_restarts_total", source="simulated:t") == 3
    assert bench.figure("sightline_agent_readings_total", sensor="a", fate="taken") == 2


async def test_a_library_s_fault_ends_neither_the_agent_nor_the_feed(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.source.fail(AttributeError("no attribute of a library"))
    await bench.until(lambda: bench.source.runs == 2)
    assert "no attribute of a library" in bench.sensors[0].reason
    await bench.stop()


async def test_a_silent_sensor_is_stalled_until_it_speaks(make: Callable[..., Bench]) -> None:
    bench = make(silent_after_s=0.05)
    bench.source.steps.put_nowait(lambda sink: sink.opened())
    await bench.until(lambda: bench.sensors[0].state == "stalled")
    assert bench.sensors[0].reason == "no reading for 0.05 s"
    bench.source.steps.put_nowait(lambda sink: sink.opened())
    bench.source.give("b", None)
    await bench.until(lambda: bench.sensors[1].state == "running")
    assert bench.sensors[0].state == "stalled", "a connection that is well says nothing of a sensor"
    await bench.stop()
    end, tail = bench.ends()["a"]
    assert (end.last, tail) == (0, {"outage": 1})


async def test_names_that_no_sensor_wants_are_said_once_and_counted(make: Callable[..., Bench]) -> None:
    with capture_logs() as logs:
        bench = make()
        for name in ["temp", "temp", "", *map(str, range(100))]:
            bench.source.steps.put_nowait(lambda sink, name=name: sink.unclaimed(name))
        bench.source.give("a", 1.0)
        await bench.until(lambda: bench.sensors[0].captured == 1)
        await bench.stop()
    said = [line["field"] for line in logs if line["event"] == "no sensor wants it"]
    assert said[:3] == ["temp", "nothing that can be read", "0"]
    assert len(said) == 20
    assert bench.figure("sightline_agent_unclaimed_readings_total", source="simulated:t") == 103


async def test_without_a_disk_nothing_is_promised_and_the_feed_says_so(
    make: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise SpoolError("the disk is gone")

    bench = make()
    monkeypatch.setattr(bench.spool, "keep", fails)
    bench.source.give("a", 1.0)
    with pytest.raises(SpoolError, match="the disk is gone"):
        await asyncio.wait_for(bench.task, 20)
