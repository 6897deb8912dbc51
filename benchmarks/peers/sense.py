"""Measurement of one system that turns sensor readings into events in one process."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peers.frames import RESULTS_S, START_S, Step
from benchmarks.peers.load import LoadRecord, collecting, create_topics, delete_topics, holding
from benchmarks.peers.series import LIMIT, RATE_HZ, WINDOW_S, closed_events, columns, times_ns, values
from benchmarks.peers.systems import BROKER, GROUP, failure, peer_spec, pids_of
from benchmarks.peers.usage import DRIVER, CpuMeter, pss_mb
from deploy.local.kafka.broker import Broker
from deploy.local.stack import StackFiles, services
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.contract.codec import encode
from ingest.contract.records import Readings
from ingest.contract.topics import EVENTS, READINGS, partition_for
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.site import SensorConfig
from ingest.site.topic.store import publish
from stream.sense.rules.threshold import ThresholdRule

SENSORS, PARTITIONS = 16, 4
WARM_UP_READINGS = 750
"""Number of readings of each sensor before the measurement. The last warm-up reading is in a time window whose mean
exceeds the limit, and comes late enough that every system has closed the previous window."""
SENSE = "sense"


@dataclass(frozen=True)
class SenseSystem:
    """A system that reads ``rows`` readings per record: columns or single readings."""

    name: str
    rows: int

    @property
    def is_peer(self) -> bool:
        """Whether the system is Quix Streams, not Sightline."""
        return self.name.startswith("quixstreams")


SENSE_SYSTEMS = {
    name: SenseSystem(name, rows)
    for name, rows in (
        ("sightline-columns", 100),
        ("quixstreams-columns", 100),
        ("sightline-single", 1),
        ("quixstreams-single", 1),
    )
}


class SenseBench:
    """One system on topics of its own."""

    def __init__(self, broker: Broker, system: SenseSystem, readings: int) -> None:
        pairs = readings // SENSORS // (2 * WINDOW_S * RATE_HZ)  # a window below the limit, and one above
        self._broker, self._system = broker, system
        self._count = WARM_UP_READINGS + pairs * 2 * WINDOW_S * RATE_HZ  # of one sensor
        self._values = [values(sensor, self._count) for sensor in range(SENSORS)]
        self._settings = KafkaSettings(bootstrap=broker.bootstrap, prefix=f"peers-{uuid.uuid4().hex[:8]}.")

    async def measure(self, step: Step) -> dict[str, Any]:
        """Start the system, measure it, stop it, and return the figures."""
        await self._prepare()
        try:
            with tempfile.TemporaryDirectory() as folder:
                step("start")
                supervisor = Supervisor([self._spec(Path(folder))], Path(folder))
                failed = partial(failure, supervisor)
                async with collecting(self._settings, EVENTS, PARTITIONS) as arrivals:
                    async with holding(self._settings, READINGS, self._records(0, WARM_UP_READINGS)) as release:
                        await release()
                    started_s = time.perf_counter()
                    async with supervisor:
                        wanted = SENSORS * closed_events(WARM_UP_READINGS)
                        await arrivals.wait(wanted, START_S, failed)
                        first_s = min(arrivals.at_s.values()) - started_s
                        figures = await self._burst(supervisor, step)
                        memory = pss_mb(supervisor.pid(SENSE) or 0)
        finally:
            await delete_topics(self._settings)
        return {"first_result_s": round(first_s, 2), **figures, "pss_mb": memory}

    async def _burst(self, supervisor: Supervisor, step: Step) -> dict[str, Any]:
        readings = SENSORS * (self._count - WARM_UP_READINGS)
        wanted = SENSORS * (closed_events(self._count) - closed_events(WARM_UP_READINGS))
        records = self._records(WARM_UP_READINGS, self._count)
        async with (
            collecting(self._settings, EVENTS, PARTITIONS) as arrivals,
            holding(self._settings, READINGS, records) as release,
        ):
            step("burst")
            meter = CpuMeter(pids_of(supervisor, self._broker))
            started_s = await release()
            await arrivals.wait(wanted, RESULTS_S, partial(failure, supervisor))
            cpu_ms = meter.ms_per(readings)
        rate = readings / (max(arrivals.at_s.values()) - started_s)
        return {
            "readings_per_s": round(rate),
            "records_per_s": round(rate * len(records) / readings),
            "cpu_us": round(1000 * cpu_ms[SENSE], 3),
            "broker_cpu_us": round(1000 * cpu_ms[BROKER], 3),
            "driver_cpu_us": round(1000 * cpu_ms[DRIVER], 3),
            "events": len(arrivals.at_s),
        }

    async def _prepare(self) -> None:
        if self._system.is_peer:
            await create_topics(self._settings, (READINGS, EVENTS), PARTITIONS)
            return
        await topicadmin.create(self._settings, partitions=PARTITIONS)
        names = [f"sensor-{number}" for number in range(SENSORS)]
        sensors = [
            SensorConfig(
                name=name, source="simulated:temperature", quantity="temperature", unit="Cel", rate_hz=RATE_HZ
            )
            for name in names
        ]
        rules = [ThresholdRule(name=f"hot-{name}", sensor=name, above=LIMIT, window_s=WINDOW_S) for name in names]
        async with KafkaLog(self._settings, "bench") as log:
            await publish(log, [*sensors, *rules])

    def _spec(self, folder: Path) -> ServiceSpec:
        if not self._system.is_peer:
            return next(s for s in services(StackFiles(folder), self._settings, folder, 0) if s.name == SENSE)
        topics = [f"--source={self._settings.topic(READINGS)}", f"--target={self._settings.topic(EVENTS)}"]
        how = "single" if self._system.rows == 1 else "columns"
        arguments = [*topics, f"--group={self._settings.group(GROUP)}", f"--how={how}"]
        return peer_spec(SENSE, "quixstreams", "quixsense", self._settings, arguments)

    def _records(self, first: int, stop: int) -> list[LoadRecord]:
        """Return the readings ``first`` to ``stop`` of all sensors, which take turns."""
        bounds = columns(first, stop, self._system.rows)
        return [self._record(sensor, start, end) for start, end in bounds for sensor in range(SENSORS)]

    def _record(self, sensor: int, first: int, stop: int) -> LoadRecord:
        name, times, read = f"sensor-{sensor}", times_ns(first, stop), self._values[sensor][first:stop]
        if self._system.is_peer:
            at_ms = [at_ns // 1_000_000 for at_ns in times]
            single = self._system.rows == 1
            value = json.dumps({"t": at_ms[0], "v": read[0]} if single else {"t": at_ms, "v": read}).encode()
        else:
            value = encode(
                Readings(
                    sensor=name,
                    epoch=1,
                    seq=first,
                    quantity="temperature",
                    unit="Cel",
                    times_ns=tuple(times),
                    values=tuple(read),
                    quality=(0,) * len(read),
                )
            )
        return LoadRecord(partition_for(name, PARTITIONS), name.encode(), value, [])
