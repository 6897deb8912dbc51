"""Outage of the broker under a running agent: order of delivery, and latency of live frames while the backlog is
sent.

``python -m benchmarks.outage --outage-s 600`` runs simulated cameras, one agent, and a broker that is killed and
started again. The benchmark measures the latency from capture to a consumer, of live and late frames, before the
outage and while the backlog is sent. At the end, the benchmark stops the agent and compares the ledger with the
topics. With a small ``--spool-mib``, frames expire, and the report counts the expired frames. The chaos tests run
this benchmark with a short outage.

The run fails if a frame is missing or sent twice, if the backlog exceeds its rate limit, or if the latency of live
frames is ``MAX_SLOWDOWN`` times higher while the backlog is sent. The tests check only that no frame is missing or
sent twice, because times on a busy machine vary too much.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import tomli_w
import typer
from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition

from benchmarks.report import KeepIt, conclude, log_progress
from deploy.local.demo.latencies import percentiles_ms
from deploy.local.kafka.broker import Broker
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.contract.codec import decode
from ingest.contract.records import Frame
from ingest.contract.topics import FRAMES, FRAMES_LATE
from ingest.kafka import settings as kafka
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.ledger.auditor import audit
from ingest.runtime import eventloop
from ingest.runtime.clock import Deadline
from ingest.site import LinkConfig

PARTITIONS = 4
SCENES = ("road", "yard", "conveyor", "road")
SETTLE_S = 5.0
"""Seconds after the broker's restart in which latencies are not measured, because clients reconnect."""
MAX_SLOWDOWN = 3.0
"""Maximum p95 latency of live frames while the backlog is sent, as a multiple of the latency before the outage. On an
idle machine, p95 is 1.5 times that latency in runs of several minutes; in a short run, it depends on a few frames."""
BURST_MIB_PER_S = 0.6
"""Accepted excess of the backlog's throughput over its rate limit, in MiB/s. At its start, the backlog may be sent
faster, because its rate limit is a token bucket."""


@dataclass(frozen=True)
class OutageOptions:
    """Options of a run.

    If ``late_mib_per_s`` is 0, the backlog is limited only by its share of the bytes in flight.
    """

    cameras: int = 4
    fps: float = 10.0
    normal_s: float = 30.0
    outage_s: float = 120.0
    spool_mib: int = 512
    late_mib_per_s: float | None = None
    catch_up_s: float = 600.0
    width: int = 640
    height: int = 360


@dataclass
class ReceivedFrames:
    """Frames that the consumer received.

    ``ages_s`` has pairs (arrival time, age at arrival) in seconds by topic, and ``order`` has pairs (epoch, sequence
    number) by topic and camera.
    """

    ages_s: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {FRAMES: [], FRAMES_LATE: []})
    order: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    late_bytes: int = 0

    def add(self, topic: str, value: bytes) -> None:
        """Add a record. Raise AssertionError if the frame is out of order."""
        frame = decode(Frame, value)
        age_s = (time.time_ns() - frame.captured_ns) / 1e9
        self.ages_s[topic].append((time.monotonic(), age_s))
        self.late_bytes += len(value) * (topic == FRAMES_LATE)
        order = self.order.setdefault((topic, frame.camera), [])
        if not order or (frame.epoch, frame.seq) > order[-1]:
            order.append((frame.epoch, frame.seq))
        elif (frame.epoch, frame.seq) not in set(order):  # a repeat does not violate the order
            raise AssertionError(f"topic {topic}: frame {frame.id} arrived after the later frame {order[-1]}")

    def live_ms(self, start_s: float, end_s: float) -> dict[str, float]:
        """Return the percentiles of the ages of live frames that arrived in an interval, in ms."""
        return percentiles_ms([1000.0 * age for at, age in self.ages_s[FRAMES] if start_s <= at < end_s])


async def run(options: OutageOptions, folder: Path, broker: Broker, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the outage and return the report."""
    settings = KafkaSettings(bootstrap=broker.bootstrap, prefix="outage.")
    await topicadmin.create(settings, partitions=PARTITIONS)
    (folder / "site.toml").write_text(tomli_w.dumps(_site(options)))
    argv = ["agent", "run", f"--site={folder / 'site.toml'}", f"--data={folder / 'data'}"]
    spec = ServiceSpec("agent", [sys.executable, "-m", "deploy.cli.app", *argv], settings.to_env())
    stack, received = Supervisor([], folder / "logs"), ReceivedFrames()
    following = asyncio.create_task(_follow(settings, received))
    log = KafkaLog(settings, "outage")
    try:
        await stack.add(spec)
        await _until(lambda: len(received.ages_s[FRAMES]) > 10 * options.cameras, 60.0, following)
        report = await _phases(options, broker, received, stack, following, say)
        say("stopping")
        await stack.stop_one("agent", 60)
        balance = await audit(log, wait_s=0)
        return {**report, "ledger": ledger_of(balance.totals.to_dict())}
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await stack.stop()
        await log.close()


async def _phases(
    options: OutageOptions,
    broker: Broker,
    received: ReceivedFrames,
    stack: Supervisor,
    following: asyncio.Task[None],
    say: Callable[[str], None],
) -> dict[str, Any]:
    agent = psutil.Process(stack.pid("agent"))
    start_s, cpu_s = time.monotonic(), _cpu_s(agent)
    await _passed(options.normal_s, following)
    normal, normal_cpu = received.live_ms(start_s, time.monotonic()), (_cpu_s(agent) - cpu_s) / options.normal_s
    say(f"normal: {normal}; the broker is killed for {options.outage_s:.0f} s")
    await asyncio.to_thread(broker.kill)
    killed_s = time.monotonic()
    await _passed(options.outage_s, following)
    before = len(received.ages_s[FRAMES])
    await asyncio.to_thread(broker.start)
    back_s = time.monotonic()
    await _until(lambda: len(received.ages_s[FRAMES]) > before, 60.0, following)
    found_s = time.monotonic()
    say(f"found again after {found_s - back_s:.1f} s; catching up")
    await _caught_up(options, received, following)
    end_s = time.monotonic()
    # frames captured shortly before the end of the outage are live, but already old
    catching_up = received.live_ms(found_s + SETTLE_S, end_s)
    say(f"caught up in {end_s - found_s:.0f} s: {catching_up}")
    start_s, cpu_s = time.monotonic(), _cpu_s(agent)
    await _passed(options.normal_s, following)
    after = received.live_ms(start_s, time.monotonic())
    return {
        "live_ms": {"before": normal, "catching_up": catching_up, "after": after},
        "p99_ratio": round(catching_up.get("p99", 0.0) / normal["p99"], 2),
        "late": {
            "frames": len(received.ages_s[FRAMES_LATE]),
            "mib": round(received.late_bytes / 2**20, 1),
            "mib_per_s": round(received.late_bytes / 2**20 / (end_s - found_s), 2),
            "caught_up_in_s": round(end_s - found_s, 1),
        },
        "down_s": round(found_s - killed_s, 1),
        "agent_cores": round(normal_cpu, 2),
    }


async def _caught_up(options: OutageOptions, received: ReceivedFrames, following: asyncio.Task[None]) -> None:
    """Wait until no late frame arrives for two seconds."""
    late, deadline, last = received.ages_s[FRAMES_LATE], Deadline.after(options.catch_up_s), -1
    await _passed(SETTLE_S, following)
    while len(late) != last and not deadline.passed:
        last = len(late)
        await _passed(2.0, following)


async def _follow(settings: KafkaSettings, received: ReceivedFrames) -> None:
    consumer: AIOKafkaConsumer = kafka.consumer(settings, "outage")
    await consumer.start()
    try:
        parts = [KafkaPartition(settings.topic(t), p) for t in (FRAMES, FRAMES_LATE) for p in range(PARTITIONS)]
        consumer.assign(parts)
        await consumer.seek_to_beginning()
        async for record in consumer:
            received.add(record.topic.removeprefix(settings.prefix), record.value)
    finally:
        await consumer.stop()


async def _passed(seconds: float, following: asyncio.Task[None]) -> None:
    """Wait ``seconds``. Raise the error of the consumer task ``following`` if the task has failed."""
    await asyncio.wait([following], timeout=seconds)
    if following.done():
        following.result()


async def _until(done: Callable[[], bool], seconds: float, following: asyncio.Task[None]) -> None:
    deadline = Deadline.after(seconds)
    while not done():
        if deadline.passed:
            raise TimeoutError(f"the frames did not arrive within {seconds:.0f} s")
        await _passed(0.1, following)


def _site(options: OutageOptions) -> dict[str, Any]:
    cameras = [
        {
            "name": f"camera-{number}",
            "source": f"simulated:{SCENES[number % len(SCENES)]}",
            "fps": options.fps,
            "width": options.width,
            "height": options.height,
            "gate": {"motion": False, "max_fps": 0.0},
            "spool": {"max_bytes": options.spool_mib * 2**20, "late_after_s": 3.0},
            "options": {"seed": number},
        }
        for number in range(options.cameras)
    ]
    pace = {} if options.late_mib_per_s is None else {"late_bytes_per_s": round(options.late_mib_per_s * 2**20)}
    return {"name": "outage", "cameras": cameras, "link": pace}


def ledger_of(totals: dict[str, Any]) -> dict[str, Any]:
    """Return the totals of the ledger.

    No engine runs, so delivered frames without a classification do not count as missing.
    """
    holes = [example for example in totals["examples"] if "has no end" not in example]
    accounted = totals["delivered"] + totals["spooled"] + sum(totals["withheld"].values())
    names = ("captured", "delivered", "spooled", "withheld", "repeats", "duplicates", "unclean")
    return {**{name: totals[name] for name in names}, "missing": totals["captured"] - accounted, "holes": holes}


def faults(options: OutageOptions, report: dict[str, Any]) -> list[str]:
    """Check a report, and return a list of the faults, which is empty if every check passed."""
    wrong = [name for name in ("missing", "holes", "duplicates") if report["ledger"][name]]
    pace = LinkConfig().late_bytes_per_s / 2**20 if options.late_mib_per_s is None else options.late_mib_per_s
    if pace and report["late"]["mib_per_s"] >= pace + BURST_MIB_PER_S:
        wrong.append(f"the backlog ran at {report['late']['mib_per_s']} MiB/s, its rate is {pace:g}")
    live = {phase: figures.get("p95", 0.0) for phase, figures in report["live_ms"].items()}
    if live["catching_up"] >= MAX_SLOWDOWN * max(live["before"], live["after"]):
        wrong.append(f"live frames beside the backlog: p95 {live['catching_up']} ms")
    return wrong


def _cpu_s(agent: psutil.Process) -> float:
    return sum(sum(p.cpu_times()[:2]) for p in [agent, *agent.children(recursive=True)])


def main(
    cameras: Annotated[int, typer.Option(min=1)] = 4,
    fps: Annotated[float, typer.Option(min=1.0)] = 10.0,
    normal_s: Annotated[float, typer.Option(help="Seconds to measure live latency without an outage.")] = 30.0,
    outage_s: Annotated[float, typer.Option(help="Seconds for which the broker is down.")] = 120.0,
    spool_mib: Annotated[int, typer.Option(help="Size of the spool of each camera, in MiB.", min=1)] = 512,
    late_mib_per_s: Annotated[float | None, typer.Option(help="Maximum rate of the backlog; 0 for no limit.")] = None,
    keep_it: KeepIt = False,
) -> None:
    """Measure an outage."""
    options = OutageOptions(cameras, fps, normal_s, outage_s, spool_mib, late_mib_per_s)
    with tempfile.TemporaryDirectory() as name, Broker(folder=Path(name) / "kafka") as broker:
        report = eventloop.run(run(options, Path(name), broker, log_progress))
    conclude("outage", {**asdict(options), **report}, faults(options, report), keep_it=keep_it)


if __name__ == "__main__":
    typer.run(main)
