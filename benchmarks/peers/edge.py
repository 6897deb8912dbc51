"""Measurement of the agent's spool and sender, and of Kafka's own producer performance test."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.frames import Step
from benchmarks.peers.load import create_topics
from benchmarks.peers.systems import PEERS
from benchmarks.peers.usage import cpu_s
from benchmarks.report import ROOT
from deploy.local.kafka.broker import Broker
from deploy.local.kafka.fetch import java, libs_folder
from ingest.kafka.settings import KafkaSettings

PARTITIONS = 4
TOPIC = "frames"
EDGE_SYSTEMS = ("agent", "link", "java", "java-batched")
"""The agent's spool and sender, its link to Kafka without a spool, and Kafka's test with the default batch size and
with batches of 1 MB."""
_RATE = re.compile(r"^(\d+) records sent, ([0-9.]+) records/sec")


@dataclass(frozen=True)
class EdgeLoad:
    """Number of records, and the size of a record in bytes."""

    records: int
    size: int


def measure_edge(system: str, load: EdgeLoad, broker: Broker, step: Step) -> dict[str, Any]:
    """Send records with ``acks=all``, and return rate and CPU time."""
    step("send")
    assert broker.pid
    before_s = cpu_s(broker.pid)
    if system.startswith("java"):
        figures = _java(broker, load, ["batch.size=1000000"] if system == "java-batched" else [])
    else:
        options = [f"--one={system}", f"--bootstrap={broker.bootstrap}", f"--records={load.records}"]
        argv = [sys.executable, "-m", "benchmarks.edge", *options, f"--size={load.size}"]
        output, _ = _run(argv)
        figures = json.loads(output.splitlines()[-1])
    return {**figures, "broker_cpu_us": round(1e6 * (cpu_s(broker.pid) - before_s) / load.records, 1)}


def _java(broker: Broker, load: EdgeLoad, properties: Sequence[str]) -> dict[str, Any]:
    settings = KafkaSettings(bootstrap=broker.bootstrap, prefix=f"peers-{uuid.uuid4().hex[:8]}.")
    asyncio.run(create_topics(settings, (TOPIC,), PARTITIONS))
    libraries = f"{libs_folder(broker.home)}/*:{PEERS / 'kafka-tools'}/*"
    command = ["-Xmx512m", "-cp", libraries, "org.apache.kafka.tools.ProducerPerformance"]
    options = [f"--topic={settings.topic(TOPIC)}", f"--num-records={load.records}", f"--record-size={load.size}"]
    kafka = [f"bootstrap.servers={broker.bootstrap}", "acks=all", *properties]
    output, cpu = _run([java(), *command, *options, "--throughput=-1", "--command-property", *kafka])
    return {
        "mb_per_s": round(records_per_s(output) * load.size / 1e6, 1),
        "cpu_us": round(1e6 * cpu / load.records, 1),
    }


def records_per_s(output: str) -> float:
    """Return the rate in the last line of the output of Kafka's producer performance test."""
    found = _RATE.match(output.strip().splitlines()[-1])
    assert found, output[-500:]
    return float(found[2])


def _run(argv: Sequence[str]) -> tuple[str, float]:
    """Return the output of a command, and its CPU time in s."""
    before = _children_s()
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout, _children_s() - before


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
