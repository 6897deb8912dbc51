"""Throughput and CPU time per message of the agent's spool and sender, compared with an earlier commit.

``python -m benchmarks.edge --beside COMMIT`` runs three cases, with this checkout and with the other commit
alternately. Case ``agent``: several cameras store frames in the spool, each camera as soon as its previous frame is
stored, and the sender sends them to a local Kafka broker. Case ``spool``: like case ``agent``, but with a link that
acknowledges each record at once. Case ``link``: records go to Kafka without a spool. Each run is a process of its
own. The report has the medians of this checkout and of the other commit, and their ratios. Ratios are more reliable
than absolute times, because other programs on the machine slow both commits down equally.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from prometheus_client import CollectorRegistry

from benchmarks.report import ROOT, KeepIt, conclude, log_progress
from edge_agent.clockoffset import ClockOffset
from edge_agent.metrics import AgentMetrics
from edge_agent.send.kafkalink import KafkaLink
from edge_agent.send.link import Link, OutboundRecord, outbound_record
from edge_agent.send.sender import Sender
from edge_agent.spool.schema import Row
from edge_agent.spool.spool import Spool
from edge_agent.spool.store import SpoolStore
from ingest.contract import headers as h
from ingest.contract.codec import encode
from ingest.contract.identity import LIVE
from ingest.contract.records import Frame
from ingest.kafka import topicadmin
from ingest.kafka.settings import KafkaSettings
from ingest.runtime import eventloop
from ingest.runtime.clock import SystemClock
from ingest.site import DiskConfig, LinkConfig, SpoolConfig

PARTITIONS = 4
CASES = ("agent", "spool", "link")
RATIOS = ("mb_per_s", "cpu_us", "spool_cpu_us", "written_per_byte")
POLL_S = 0.005
AGE_S = 86_400.0
"""Age in seconds up to which a frame is live: all frames of a run take the same lane."""


class InstantLink:
    """Link that acknowledges each record at once."""

    clock = ClockOffset()
    address = "nowhere"

    async def open(self) -> None:
        """Do nothing."""

    async def send(self, _: OutboundRecord) -> asyncio.Future[None]:
        """Return a completed future."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def publish(self, _: OutboundRecord) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


class Meter:
    """Wall time, CPU time and written bytes of this process since its creation."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s, self._written = time.perf_counter(), time.process_time(), _written()
        self._spool_s = _spool_thread_s()

    def figures(self, records: int, size: int) -> dict[str, float]:
        """Return the rate, the CPU time per record, and the bytes written to the disk per byte of the records."""
        took_s = time.perf_counter() - self._wall_s
        return {
            "mb_per_s": round(records * size / took_s / 1e6, 1),
            "cpu_us": round(1e6 * (time.process_time() - self._cpu_s) / records, 1),
            "spool_cpu_us": round(1e6 * (_spool_thread_s() - self._spool_s) / records, 1),
            "written_per_byte": round((_written() - self._written) / (records * size), 2),
        }


def _spool_thread_s() -> float:
    """Return the CPU time of the spool's thread in seconds."""
    clocks = [
        time.pthread_getcpuclockid(t.ident) for t in threading.enumerate() if t.name.startswith("spool") and t.ident
    ]
    return sum(map(time.clock_gettime, clocks))


def _written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def _record(size: int) -> bytes:
    def encoded(length: int) -> bytes:
        image = os.urandom(length)
        return encode(Frame(camera="camera-0", epoch=1, seq=0, captured_ns=1, width=768, height=432, image=image))

    return encoded(size - len(encoded(0)) - 4)


def _row(name: str, seq: int, record: bytes, row_id: int = 0) -> Row:
    return Row("frame", name, 1, seq, time.time_ns(), record, h.new_traceparent(), id=row_id)


async def until(done: Callable[[], bool], sending: asyncio.Task[None]) -> None:
    """Wait until a condition holds. Raise the sender's error if the sender fails first."""
    while not done():
        await asyncio.wait({sending}, timeout=POLL_S)  # the counter has no event
        if sending.done():
            sending.result()  # raises the sender's error


async def measure_link(link: Link, names: list[str], records: int, size: int) -> dict[str, float]:
    """Send records over a link without a spool, within the in-flight limit of an agent."""
    record, limit = _record(size), max(LinkConfig().max_in_flight_bytes // size, 1)
    await link.open()
    await asyncio.gather(*[await link.send(outbound_record(_row(name, 0, b"first"), LIVE)) for name in names])
    meter, flying = Meter(), set[asyncio.Future[None]]()
    for number in range(records):
        row = _row(names[number % len(names)], number // len(names), record, number + 1)
        flying.add(await link.send(outbound_record(row, LIVE)))
        if len(flying) >= limit:
            _, flying = await asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait(flying)
    figures = meter.figures(records, size)
    await link.close()
    return figures


async def measure_agent(link: Link, names: list[str], records: int, size: int, folder: Path) -> dict[str, float]:
    """Store records in a spool and send them, until the spool is empty."""
    record, clock, registry = _record(size), SystemClock(), CollectorRegistry()
    metrics = AgentMetrics(registry)
    spool = Spool(SpoolStore(folder / "spool.db", "bench"), DiskConfig(), clock=clock, metrics=metrics)
    await spool.open()
    spool.set_bounds({name: SpoolConfig(late_after_s=AGE_S) for name in names}, {})
    sender = Sender(link, spool, LinkConfig(), clock=clock, metrics=metrics)
    sending = asyncio.create_task(sender.run(random.random))
    waits_ms: list[float] = []

    def sent() -> float:
        return registry.get_sample_value("sightline_agent_sent_total") or 0.0

    async def capture(name: str) -> None:
        for seq in range(records // len(names)):
            started_s = time.perf_counter()
            await spool.keep([_row(name, seq + 1, record)])
            waits_ms.append(1e3 * (time.perf_counter() - started_s))
            sender.wake()

    await asyncio.gather(*(spool.keep([_row(name, 0, b"first")]) for name in names))
    await until(lambda: sent() == len(names), sending)  # the producer now knows the leaders of the partitions
    meter = Meter()
    await asyncio.gather(*map(capture, names))
    await until(lambda: sent() == len(names) + len(waits_ms), sending)
    figures = meter.figures(len(waits_ms), size)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await link.close()
    await spool.close()
    return {**figures, "keep_p50_ms": round(statistics.median(waits_ms), 2)}


async def _one(case: str, bootstrap: str, cameras: int, records: int, size: int, folder: Path) -> dict[str, float]:
    names = [f"camera-{number}" for number in range(cameras)]
    link: Link = InstantLink()
    if case != "spool":
        settings = KafkaSettings(bootstrap=bootstrap, prefix=f"edge-{uuid.uuid4().hex[:8]}.")
        await topicadmin.create(settings, partitions=PARTITIONS)
        link = KafkaLink(settings, "edge-bench", {name: number % PARTITIONS for number, name in enumerate(names)})
    if case == "link":
        return await measure_link(link, names, records, size)
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        return await measure_agent(link, names, records, size, Path(fresh))


def _checkout(commit: str, folder: Path) -> Path:
    """Write the packages of a commit into a folder, and return the folder."""
    packages = ["edge_agent", "ingest", "benchmarks/report.py"]
    archive = subprocess.run(["git", "archive", commit, *packages], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def _run_child(code: Path, options: list[str]) -> dict[str, float]:
    argv = [sys.executable, __file__, *options]
    env = {**os.environ, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(argv, cwd=code, env=env, stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of each case and commit, and the median over all rounds of the ratio of the two commits."""
    report: dict[str, Any] = {}
    for case in dict.fromkeys(run["case"] for run in runs):
        mine = [run for run in runs if run["case"] == case]
        codes = {code: [run["figures"] for run in mine if run["code"] == code] for code in ("this", "beside")}
        report[case] = {
            code: {name: round(statistics.median(f[name] for f in found), 2) for name in found[0]}
            for code, found in codes.items()
            if found
        }
        if codes["beside"]:
            report[case]["ratio"] = {
                name: round(statistics.median(a[name] / b[name] for a, b in zip(*codes.values(), strict=True)), 2)
                for name in RATIOS
                if all(b[name] for b in codes["beside"])
            }
    return report


def main(
    beside: Annotated[str, typer.Option(help="Commit to run in turns with this checkout. Empty: none.")] = "",
    cases: Annotated[str, typer.Option(help="Cases, separated by commas.")] = ",".join(CASES),
    rounds: Annotated[int, typer.Option(min=1, help="Runs of each case and commit.")] = 3,
    records: Annotated[int, typer.Option(min=64, help="Frames in each run.")] = 4000,
    size: Annotated[int, typer.Option(min=200, help="Size of a frame in bytes.")] = 40_000,
    cameras: Annotated[int, typer.Option(min=1, help="Cameras that store frames at the same time.")] = 16,
    folder: Annotated[Path, typer.Option(help="Folder of the spool, on the disk to measure.")] = Path("/var/tmp"),  # noqa: S108
    bootstrap: Annotated[str, typer.Option(help="Address of Kafka. Empty: start a broker.")] = "",
    one: Annotated[str, typer.Option(help="Run one case in this process, and print its figures.")] = "",
    keep_it: KeepIt = False,
) -> None:
    """Measure the spool and the sender. Print the report as JSON."""
    if one:
        typer.echo(json.dumps(eventloop.run(_one(one, bootstrap, cameras, records, size, folder))))
        return
    from deploy.local.kafka.broker import Broker  # not in the checkout of another commit

    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        address = bootstrap or stack.enter_context(Broker(folder=Path(name) / "kafka")).bootstrap
        codes = {"this": ROOT} | ({"beside": _checkout(beside, Path(name) / "beside")} if beside else {})
        options = [f"--bootstrap={address}", f"--cameras={cameras}", f"--records={records}"]
        options += [f"--size={size}", f"--folder={folder}"]
        for number in range(rounds):
            for case in cases.split(","):
                for code in sorted(codes, reverse=number % 2 == 0):
                    figures = _run_child(codes[code], [*options, f"--one={case}"])
                    runs.append({"case": case, "code": code, "figures": figures})
                    log_progress(f"{case} {code}: {json.dumps(figures)}")
    setup = {"records": records, "size": size, "cameras": cameras, "beside": beside}
    conclude("edge", {**setup, "cases": summary(runs), "runs": runs}, [], keep_it=keep_it, quiet="runs")


if __name__ == "__main__":
    typer.run(main)
