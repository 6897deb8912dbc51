"""Goodput under open load: the engine node, LitServe and Ray Serve with the same model and session options.

``benchmarks/serving/goodput/setup.sh`` creates the Python environments of the peers, LitServe and Ray Serve. ``python
-m benchmarks.serving.goodput --rates 10,20,30 --keep`` offers Poisson arrivals at each rate to each system, and
prints a table of offered rate against goodput and p99. Goodput is the rate of responses that arrive within
``--bound`` seconds of the planned arrival of their request.

Fairness: a request is a JPEG frame, which the system decodes and resizes with the product's functions. All systems
have the same model, decoder, frames, arrival times, cores and number of client processes, and one ONNX Runtime
session thread per worker. The model is YOLOX-nano, or the shipped model if YOLOX-nano's file is
missing. The latency includes the transport. The node gets requests and returns results over Kafka, with a transaction
for the results; the peers use HTTP over loopback. Kafka stores the node's requests durably; the peers' requests are
not stored.

Tuning: all systems use dynamic batching. ``--tune`` measures the settings of ``CANDIDATES`` at the given rates, to
choose the best setting. The node sheds requests, and LitServe refuses requests, that have waited too long to be
answered within the latency bound. Ray Serve refuses requests while its queue is full; its queue limit is the number
of requests that arrive within the latency bound at the highest rate. Ray Serve runs without its dashboard, with
``RAY_SERVE_THROUGHPUT_OPTIMIZED``, and with workers of normal priority. A shed or refused request counts as a request
without a response.

Order: each round starts each system once and offers all rates to the system, one after another. The order of the
systems rotates from round to round. A table entry is the median of all rounds.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import resource
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgpack
import typer

from benchmarks.peers.usage import CpuMeter
from benchmarks.pipeline import PipelineCase, cases
from benchmarks.report import KeepIt, conclude, log_progress
from benchmarks.serving.goodput.openload import load_figures
from benchmarks.serving.goodput.systems import OpenLoad, ServerSetting, serving

SYSTEMS = ("sightline", "litserve", "ray")
PICTURES = 60
WAIT_SHARE = 0.8
"""Age at which the node sheds a request or LitServe refuses a request, as a share of the latency bound. A request may
use the rest of its latency bound for inference and for the response's transport."""
LEAST_QUEUE = 16
"""Minimum limit of Ray Serve's queue, so that Ray Serve does not refuse bursts at low rates."""
WARM_UP_S = 60.0
"""Time of the load before the first measured rate, in seconds. A broker that has just started takes several times the
processor time per request, because Java still compiles it."""
WARM_UP_RATE = 50.0
CANDIDATES = [
    *(ServerSetting("sightline", workers) for workers in (1, 2)),
    *(
        ServerSetting(system, workers, batch, wait_s)
        for system in SYSTEMS[1:]
        for workers in (1, 2)
        for batch, wait_s in ((2, 0.002), (8, 0.002), (8, 0.01))
    ),
]
CHOSEN = {
    "sightline": ServerSetting("sightline", 2),
    "litserve": ServerSetting("litserve", 2, 2, 0.002),
    "ray": ServerSetting("ray", 2, 8, 0.002),
}
"""Best setting by system, found with ``--tune``."""


@dataclass(frozen=True)
class GoodputOptions:
    """Options of a run.

    ``pictures`` is the file with the requests' frames; ``queue`` is the limit of Ray Serve's queue.
    """

    systems: Sequence[str]
    rates: Sequence[float]
    seconds: float
    rounds: int
    bound_s: float
    queue: int
    pictures: Path


async def offer(
    setting: ServerSetting, case: PipelineCase, options: GoodputOptions, seed: int, key: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Start a server, offer all rates to the server, and return the figures of each run with the values of ``key``.

    A low load whose responses are not measured warms the server up.
    """
    runs = []
    with tempfile.TemporaryDirectory() as name:
        wait_s = WAIT_SHARE * options.bound_s
        async with serving(setting, case, wait_s, options.queue, Path(name)) as server:
            await server.drive(OpenLoad(WARM_UP_RATE, WARM_UP_S, 0, options.pictures))
            for rate in options.rates:
                meter, client_s = CpuMeter(server.pids), _ended_children_s()
                latencies_s = await server.drive(OpenLoad(rate, options.seconds, seed, options.pictures))
                cpu_ms = meter.ms_per(len(latencies_s))
                cpu_ms["client"] = round(1000 * (_ended_children_s() - client_s) / len(latencies_s), 2)
                figures = load_figures(latencies_s, options.seconds, options.bound_s)
                load = round(os.getloadavg()[0], 2)
                runs.append({**key, "rate": rate, **figures, "cpu_ms_a_request": cpu_ms, "load": load})
                log_progress(f"{runs[-1]}")
    return runs


def _ended_children_s() -> float:
    """Return the CPU time in s of the child processes that have ended. Of them, only the client ends under load."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def table(runs: Sequence[Mapping[str, Any]], rates: Sequence[float]) -> list[dict[str, Any]]:
    """Return the medians over all rounds, in one row per rate and system."""
    rows = []
    for rate, system in itertools.product(rates, SYSTEMS):
        found = [run for run in runs if run["rate"] == rate and run["system"] == system]
        if found:
            keys = ("offered_per_s", "goodput_per_s", "p50_ms", "p99_ms", "p99_answered_ms")
            rows.append({"rate": rate, "system": system, **{key: _median(run[key] for run in found) for key in keys}})
    return rows


def _median(values: Iterable[float | None]) -> float | None:
    """Return the median of values where None counts as infinite. Return None if the median is infinite."""
    found = statistics.median(math.inf if value is None else value for value in values)
    return round(found, 1) if math.isfinite(found) else None


async def compare(case: PipelineCase, options: GoodputOptions) -> list[dict[str, Any]]:
    """Offer all rates to all systems in each round, and return the figures of each run."""
    runs: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for place in range(len(options.systems)):
            system = options.systems[(place + number) % len(options.systems)]
            key = {"round": number, "system": system}
            runs += await offer(CHOSEN[system], case, options, 1 + number, key)
    return runs


async def tune(case: PipelineCase, options: GoodputOptions) -> list[dict[str, Any]]:
    """Offer all rates to each setting in ``CANDIDATES``, and return the figures of each run."""
    runs: list[dict[str, Any]] = []
    for setting in CANDIDATES:
        if setting.system in options.systems:
            runs += await offer(setting, case, options, 1, {"setting": setting.name})
    return runs


def main(
    rates: Annotated[str, typer.Option(help="Offered requests per second, separated by commas.")] = "20,40,60,80",
    seconds: Annotated[float, typer.Option(min=1.0, help="Seconds per rate.")] = 10.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all systems.")] = 3,
    bound: Annotated[float, typer.Option(min=0.01, help="Longest latency of a good response in s.")] = 0.25,
    systems: Annotated[str, typer.Option(help="Systems, separated by commas.")] = ",".join(SYSTEMS),
    tuning: Annotated[bool, typer.Option("--tune", help="Compare the settings of each system instead.")] = False,
    keep_it: KeepIt = False,
) -> None:
    """Offer all rates to all systems, and print a table of offered rate, goodput and p99."""
    case = cases(PICTURES)[-1]
    pipeline = case.pipeline.model_copy(update={"freshness_s": WAIT_SHARE * bound})
    case = replace(case, pipeline=pipeline)
    offered = [float(rate) for rate in rates.split(",")]
    with tempfile.TemporaryDirectory() as name:
        pictures = Path(name) / "pictures.msgpack"
        frames = [(picture.width, picture.height, picture.jpeg) for picture in case.pictures[:PICTURES]]
        pictures.write_bytes(msgpack.packb(frames))
        queue = max(LEAST_QUEUE, round(max(offered) * bound))
        options = GoodputOptions(systems.split(","), offered, seconds, rounds, bound, queue, pictures)
        runs = asyncio.run(tune(case, options) if tuning else compare(case, options))
    figures = {
        "case": case.name,
        "bound_s": bound,
        "seconds": seconds,
        "rounds": rounds,
        "settings": {system: setting.name for system, setting in CHOSEN.items()},
        "table": [] if tuning else table(runs, offered),
        "runs": runs,
    }
    conclude("goodput", figures, [], keep_it=keep_it and not tuning, quiet="" if tuning else "runs")


if __name__ == "__main__":
    typer.run(main)
