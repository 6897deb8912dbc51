"""The time from the capture of a frame to its event on the page, as a browser gets it: by server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.console.rig import PreparedStack, RunningConsole, run_beside
from deploy.local.demo.latencies import percentiles_ms
from deploy.local.demo.run import RunningStack
from deploy.local.kafka.broker import Broker

WARM_S = 10.0
"""Time in seconds at the begin that is not measured."""
KINDS = ("event", "alert")


class Arrival(NamedTuple):
    """News that reached the page: its kind, its latency from the capture in ms, and whether it is live and of a
    camera. The events of sensors wait for the end of a time window."""

    kind: str
    latency_ms: float
    live: bool


async def arrivals(lines: AsyncIterator[str]) -> AsyncIterator[Arrival]:
    """Yield the news of a stream of server-sent events as it arrives."""
    kind = ""
    async for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data" and kind in KINDS:
            data = json.loads(value)["data"]
            live = bool(data.get("camera")) and data.get("lane", "live") == "live" and data.get("change") != "end"
            yield Arrival(kind, time.time_ns() / 1e6 - data["captured_ns"] / 1e6, live)


async def run(seconds: float, folder: Path, broker: Broker, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the stack with the console, follow the console's news, and return the percentiles."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}

    async def during(running: RunningStack, console: RunningConsole) -> None:
        await asyncio.sleep(WARM_S)
        try:
            async with (
                asyncio.timeout(seconds),
                console.client.stream("GET", f"/api/stream?kinds={','.join(KINDS)}", timeout=None) as response,
            ):
                response.raise_for_status()
                async for arrival in arrivals(response.aiter_lines()):
                    if arrival.live:
                        found[arrival.kind].append(arrival.latency_ms)
                raise ConnectionError("the console ended the stream of news")
        except TimeoutError:
            say(f"{seconds:.0f} s have passed")

    await run_beside(PreparedStack.of("latency", folder, broker), during, say)
    return {f"capture_to_{kind}_on_page_ms": {"count": len(ms), **percentiles_ms(ms)} for kind, ms in found.items()}
