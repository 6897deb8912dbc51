"""A connection and its sensors in the agent: outages are told once, epochs end with their tail."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edge_agent.exceptions import SourceUnusable, SpoolError
from edge_agent.sensors.source import Reading, Sink
from edge_agent.spool.schema import Row
from tests.edge_agent.sensors.feedbench import Bench, fed
from tests.edge_agent.sensors.listener import sensor

Make = Callable[..., Awaitable[Bench]]


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


@pytest.fixture
def source() -> Scripted:
    return Scripted()


@pytest.fixture
async def make(tmp_path: Path, source: Scripted) -> AsyncIterator[Make]:
    async with contextlib.AsyncExitStack() as stack:

        async def bench(**values: Any) -> Bench:
            configs = [sensor(name, "simulated:t", **{"max_delay_s": 0.02} | values) for name in ("a", "b")]
            return await stack.enter_async_context(fed(tmp_path, *configs, source=source))

        yield bench


async def test_a_reading_is_kept_in_time_though_no_other_comes(make: Make, source: Scripted) -> None:
    bench = await make()
    source.give("a", 1.0)
    await bench.until(lambda: bench.sensors["a"].kept == 1)
    assert bench.sensors["a"].state == "running"
    await bench.stop()
    assert [each.values for each in bench.kept("a")] == [(1.0,)]
    assert not bench.kept("b")


async def test_a_device_whose_every_other_reading_is_garbage_does_not_fill_the_log(
    make: Make, source: Scripted
) -> None:
    bench = await make()
    with capture_logs() as logs:
        for _ in range(5):
            source.give("a", None)
            source.give("a", 1.0)
        await bench.until(lambda: bench.sensors["a"].captured == 10)
    assert [line["event"] for line in logs].count("reading_withheld") == 1
    assert bench.sensors["a"].reason == ""


async def test_epochs_end_cleanly_and_with_their_tail(make: Make, source: Scripted) -> None:
    bench = await make(max_delay_s=60.0)
    source.give("a", 1.0)
    source.give("a", None)
    await bench.until(lambda: bench.sensors["a"].captured == 2)
    assert (bench.sensors["a"].state, bench.sensors["a"].reason) == ("running", "unusable: garbled")
    await bench.stop()
    assert [each.values for each in bench.kept("a")] == [(1.0,)], "what was gathered is promised at the end"
    (a, a_tail), (b, b_tail) = (bench.ends()[name] for name in ("a", "b"))
    assert (a.last, a.clean, a_tail) == (1, True, {"unusable": 1})
    assert (b.last, b.clean, b_tail) == (-1, True, {})
    assert not bench.store.unfinished("readings")


async def test_what_is_on_its_way_to_the_disk_at_the_end_arrives_there(
    make: Make, source: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, free = await make(max_delay_s=0.0), threading.Event()
    await bench.until(lambda: source.runs == 1)
    keep, waited = bench.store.keep, list[bool]()

    def slow(rows: Sequence[Row]) -> None:
        waited.append(free.wait(20.0))
        keep(rows)

    monkeypatch.setattr(bench.store, "keep", slow)
    source.give("a", 1.0)
    await bench.until(lambda: bench.sensors["a"].captured == 1 and bench.sensors["a"]._intake.left_s() is None)
    bench.feed.stop()
    await asyncio.sleep(0)
    free.set()
    await asyncio.wait_for(bench.task, 20)
    assert waited == [True]
    assert bench.values("a") == [1.0]


async def test_an_outage_is_told_once_at_its_beginning_and_once_at_its_end(make: Make, source: Scripted) -> None:
    with capture_logs() as logs:
        bench = await make()
        source.give("a", 1.0)
        await bench.until(lambda: bench.sensors["a"].captured == 1)
        for attempt in range(3):
            source.fail(SourceUnusable(f"unplugged {attempt}"))
        await bench.until(lambda: source.runs == 4)
        status = bench.sensors["a"].status([])
        assert (status.state, status.reason, status.captured) == ("down", "unplugged 2", 2)
        source.give("a", 2.0)
        await bench.until(lambda: bench.sensors["a"].captured == 3)
        assert (bench.sensors["a"].state, bench.sensors["a"].reason, bench.sensors["b"].state) == (
            "running",
            "",
            "down",
        )
        await bench.stop()
    told = [(line["event"], line["sensor"]) for line in logs if line["event"].startswith("sensor_")]
    assert sorted(told) == [("sensor_back", "a"), ("sensor_lost", "a"), ("sensor_lost", "b")]
    assert bench.withheld("a") == bench.withheld("b") == {"outage": 1}
    assert bench.figure("sightline_agent_source_restarts_total", source="simulated:t") == 3
    assert bench.figure("sightline_agent_readings_total", sensor="a", fate="taken") == 2


async def test_a_library_s_fault_ends_neither_the_agent_nor_the_feed(make: Make, source: Scripted) -> None:
    bench = await make()
    source.fail(AttributeError("no attribute of a library"))
    await bench.until(lambda: source.runs == 2)
    assert "no attribute of a library" in bench.sensors["a"].reason
    await bench.stop()


async def test_a_silent_sensor_is_stalled_until_it_speaks(make: Make, source: Scripted) -> None:
    bench = await make(silent_after_s=0.05)
    source.steps.put_nowait(lambda sink: sink.opened())
    await bench.until(lambda: bench.sensors["a"].state == "stalled")
    assert bench.sensors["a"].reason == "no reading for 0.05 s"
    source.steps.put_nowait(lambda sink: sink.opened())
    source.give("b", None)
    await bench.until(lambda: bench.sensors["b"].state == "running")
    assert bench.sensors["a"].state == "stalled", "a connection that is well says nothing of a sensor"
    await bench.stop()
    end, tail = bench.ends()["a"]
    assert (end.last, tail) == (0, {"outage": 1})


async def test_a_sensor_that_is_silent_alone_stays_so_when_others_speak(make: Make, source: Scripted) -> None:
    bench = await make()
    source.steps.put_nowait(lambda sink: sink.lost("a", "unit 2 does not answer"))
    source.steps.put_nowait(lambda sink: sink.opened())
    source.give("b", 1.0)
    await bench.until(lambda: bench.sensors["b"].captured == 1)
    assert (bench.sensors["a"].state, bench.sensors["a"].reason) == ("stalled", "unit 2 does not answer")
    source.fail(SourceUnusable("unplugged"))
    await bench.state("a", "down")
    source.steps.put_nowait(lambda sink: sink.opened())
    for name in ("a", "b"):
        await bench.state(name, "running")
    await bench.stop()
    assert bench.withheld("a") == bench.withheld("b") == {"outage": 1}


async def test_names_that_no_sensor_wants_are_said_once_and_counted(make: Make, source: Scripted) -> None:
    with capture_logs() as logs:
        bench = await make()
        for name in ["temp", "temp", "", *map(str, range(100))]:
            source.steps.put_nowait(lambda sink, name=name: sink.unclaimed(name))
        source.give("a", 1.0)
        await bench.until(lambda: bench.sensors["a"].captured == 1)
        await bench.stop()
    said = [line["field"] for line in logs if line["event"] == "reading_unclaimed"]
    assert said[:3] == ["temp", "unreadable data", "0"]
    assert len(said) == 20
    assert bench.figure("sightline_agent_unclaimed_readings_total", source="simulated:t") == 103


async def test_without_a_disk_nothing_is_promised_and_the_feed_says_so(
    make: Make, source: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise SpoolError("the disk is gone")

    bench = await make()
    monkeypatch.setattr(bench.store, "keep", fails)
    source.give("a", 1.0)
    with pytest.raises(SpoolError, match="the disk is gone"):
        await asyncio.wait_for(bench.task, 20)
