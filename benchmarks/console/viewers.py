"""Fifty viewers of live pictures: the cost of the console, the pictures per viewer, and the pipeline's latency with
and without the viewers, in turns."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.console.rig import PreparedStack, RunningConsole, run_beside
from benchmarks.console.sockets import LiveClient
from benchmarks.peers.usage import DRIVER, CpuMeter
from deploy.local.demo.latencies import percentiles_ms
from deploy.local.demo.run import RunningStack
from deploy.local.kafka.broker import Broker
from deploy.local.stack import CONSOLE
from ingest.contract.codec import decode
from ingest.contract.identity import LIVE
from ingest.contract.records import Result
from ingest.contract.topics import RESULTS
from ingest.kafka.kafkalog import KafkaLog

SETTLE_S = 3.0
"""Time in seconds at the begin of each turn that is not measured, because viewers connect or leave."""
WARM_S = 10.0
CONNECT_S = 30.0


@dataclass(frozen=True)
class ViewerOptions:
    """Options of a run. ``turns`` counts the turns with viewers; each has a turn without viewers before it."""

    viewers: int = 50
    turns: int = 4
    turn_s: float = 20.0


class ViewerTurn(NamedTuple):
    """One turn: the number of viewers, its interval in Unix ns, and the figures of the console."""

    viewers: int
    begin_ns: int
    end_ns: int
    console_cores: float
    console_mb: float
    client_cores: float
    pictures_per_s: tuple[float, ...]


async def measure_turn(console: RunningConsole, viewers: int, seconds: float) -> ViewerTurn:
    """Connect viewers, and measure the console while they watch."""
    assert console.pid, "the console must run"
    loop = asyncio.get_running_loop()
    clients = [LiveClient(console.port, console.cookie) for _ in range(viewers)]
    try:
        for client in clients:
            await loop.create_connection(lambda client=client: client, "127.0.0.1", console.port)  # type: ignore[misc]
        async with asyncio.timeout(CONNECT_S):
            await asyncio.gather(*(client.watching.wait() for client in clients))
        await asyncio.sleep(SETTLE_S)
        before = [client.pictures.total() for client in clients]
        began_s, begin_ns = time.monotonic(), time.time_ns()
        meter = CpuMeter({CONSOLE: console.pid})
        await asyncio.sleep(seconds)
        took_s, end_ns = time.monotonic() - began_s, time.time_ns()
        cores = {name: round(ms / 1000 / took_s, 3) for name, ms in meter.ms_per(1).items()}
        lost = sum(client.closed for client in clients)
        assert not lost, f"the console closed the connection of {lost} viewers"
        return ViewerTurn(
            viewers,
            begin_ns,
            end_ns,
            cores[CONSOLE],
            round(psutil.Process(console.pid).memory_info().rss / 1e6, 1),
            cores[DRIVER],
            tuple(round((c.pictures.total() - b) / took_s, 2) for c, b in zip(clients, before, strict=True)),
        )
    finally:
        for client in clients:
            client.close()


async def run(options: ViewerOptions, folder: Path, broker: Broker, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the stack with viewers in turns, and return the report."""
    turns, latencies = list[ViewerTurn](), dict[int, list[float]]()

    async def during(running: RunningStack, console: RunningConsole) -> None:
        await asyncio.sleep(WARM_S)
        for number in range(2 * options.turns):
            turns.append(await measure_turn(console, options.viewers * (number % 2), options.turn_s))
            say(f"{turns[-1].viewers} viewers: {turns[-1].console_cores} cores, {turns[-1].console_mb} MB")
        async with KafkaLog(running.settings, "viewers") as log:
            latencies.update(await result_latencies(log, turns))

    await run_beside(PreparedStack.of("viewers", folder, broker), during, say)
    return summary(turns, latencies)


async def result_latencies(log: KafkaLog, turns: list[ViewerTurn]) -> dict[int, list[float]]:
    """Return, for each turn, the latencies in ms from the capture to the result of the frames of the turn."""
    found: dict[int, list[float]] = {number: [] for number in range(len(turns))}
    begins = await log.beginnings(RESULTS)
    for partition, end in (await log.ends(RESULTS)).items():
        async for record in log.read(RESULTS, partition, begins[partition], end):
            result = decode(Result, record.value)
            for number, turn in enumerate(turns):
                if result.lane == LIVE and turn.begin_ns <= result.captured_ns < turn.end_ns:
                    found[number].append(record.timestamp_ms - result.captured_ns / 1e6)
    return found


def summary(turns: list[ViewerTurn], latencies: dict[int, list[float]]) -> dict[str, Any]:
    """Return the report: the medians of the turns with and without viewers, and each turn. Pure."""
    rows: list[dict[str, Any]] = [
        {
            "viewers": turn.viewers,
            "results": len(latencies[number]),
            "capture_to_result_ms": percentiles_ms(latencies[number]),
            "console_cores": turn.console_cores,
            "console_mb": turn.console_mb,
            "client_cores": turn.client_cores,
            "pictures_per_s": {
                "least": min(turn.pictures_per_s),
                "median": round(statistics.median(turn.pictures_per_s), 2),
            }
            if turn.viewers
            else {},
        }
        for number, turn in enumerate(turns)
    ]
    medians = {}
    for name, own in (
        ("without", [row for row in rows if not row["viewers"]]),
        ("with", [row for row in rows if row["viewers"]]),
    ):
        medians[name] = {
            **{key: statistics.median(row[key] for row in own) for key in ("console_cores", "console_mb")},
            **{p: statistics.median(row["capture_to_result_ms"][p] for row in own) for p in ("p50", "p99")},
        }
    return {"medians": medians, "turns": rows}
