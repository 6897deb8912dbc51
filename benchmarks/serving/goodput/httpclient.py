"""Open-loop HTTP client of LitServe and Ray Serve, run as a script in the server's environment.

Prints a JSON list: the latency of each request in seconds, or null if the request has no valid response. A latency
counts from the planned arrival, so a client that sends late increases the latency.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path

import aiohttp
import msgpack
import uvloop

from benchmarks.serving.goodput.openload import arrivals_s


async def drive(options: argparse.Namespace) -> list[float | None]:
    """Send all requests at their planned times, and return their latencies in seconds, or None without a response."""
    pictures = [jpeg for _, _, jpeg in msgpack.unpackb(options.pictures.read_bytes())]
    planned = arrivals_s(options.rate, options.seconds, options.seed)
    latencies: list[float | None] = [None] * len(planned)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        started_s = time.perf_counter() + 0.1

        async def request(number: int) -> None:
            body = pictures[number % len(pictures)]
            data: aiohttp.FormData | bytes = body
            if options.form:
                data = aiohttp.FormData()
                data.add_field("frame", body, filename="frame", content_type="application/octet-stream")
            try:
                async with session.post(options.url, data=data) as response:
                    await response.json()
                    if response.status == 200:
                        latencies[number] = time.perf_counter() - started_s - planned[number]
            except (aiohttp.ClientError, ValueError):
                pass

        tasks = set()
        for number, at_s in enumerate(planned):
            await asyncio.sleep(max(0.0, started_s + at_s - time.perf_counter()))
            tasks.add(asyncio.create_task(request(number)))
        _, late = await asyncio.wait(tasks, timeout=options.drain_s)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
    return latencies


def main() -> None:
    """Send all requests, and print their latencies."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--form", action="store_true")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--drain-s", type=float, required=True)
    print(json.dumps(uvloop.run(drive(parser.parse_args()))))


if __name__ == "__main__":
    main()
