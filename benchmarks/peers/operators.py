"""Measurement of one system that applies one operator in one process: windows of readings, a threshold, or a count of
the objects that cross a line."""

from __future__ import annotations

import abc
import tempfile
import time
import uuid
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.peers import series
from benchmarks.peers.frames import RESULTS_S, START_S, Step
from benchmarks.peers.load import LoadRecord, collecting, create_topics, delete_topics, holding
from benchmarks.peers.systems import BROKER, GROUP, failure, peer_spec, pids_of
from benchmarks.peers.tables import SIGHTLINE
from benchmarks.peers.usage import DRIVER, CpuMeter, pss_mb
from deploy.local.kafka.broker import Broker
from deploy.local.stack import StackFiles, services
from deploy.local.supervisor import ServiceSpec, Supervisor
from ingest.contract.codec import encode, encode_json
from ingest.contract.records import Box, Detection, FrameRef, Readings, Record, Result
from ingest.contract.topics import EVENTS, READINGS, RESULTS, partition_for
from ingest.kafka import topicadmin
from ingest.kafka.kafkalog import KafkaLog
from ingest.kafka.settings import KafkaSettings
from ingest.site import CameraConfig, ConfigEntry, PipelineConfig, SensorConfig
from ingest.site.topic.store import publish
from stream.analyse.rules.line import LineRule
from stream.sense.rule import SensorRule
from stream.sense.rules.limit import LimitRule
from stream.sense.rules.threshold import ThresholdRule

STREAMS, PARTITIONS = 16, 4
NAMES = [f"stream-{number}" for number in range(STREAMS)]
PROGRAMS = {
    "quixstreams": ("quixstreams", "quixoperators", ()),
    "faststream": ("faststream", "faststreamoperators", ()),
    "faststream-batch": ("faststream", "faststreamoperators", ("--batch=500",)),
}
"""The environment, the program and the options of each peer."""
SYSTEMS = (SIGHTLINE, *PROGRAMS)
ROWS = 100
"""Number of readings in a record of the operator ``columns``."""


class Operator(abc.ABC):
    """An operator over the records of ``STREAMS`` sensors or cameras, whose streams have ``count`` items each."""

    service: ClassVar[str]
    topic: ClassVar[str]
    warm_up: ClassVar[int]
    """Number of items of each stream before the measurement. At the end of the warm-up, every system has reported the
    same events."""
    cycle: ClassVar[int]
    """The burst has a multiple of this number of items of each stream, so that it also ends where every system has
    reported the same events."""
    rows: int = 1

    def __init__(self, records: int) -> None:
        cycles = max(1, records * self.rows // STREAMS // self.cycle)
        self.count = self.warm_up + cycles * self.cycle

    @abc.abstractmethod
    def site(self) -> Sequence[ConfigEntry]:
        """Return the site of Sightline."""

    @abc.abstractmethod
    def events(self, count: int) -> int:
        """Return the number of events of one stream of ``count`` items."""

    @abc.abstractmethod
    def record(self, stream: str, first: int, stop: int) -> Record:
        """Return the record with some items of a stream."""

    def records(self, first: int, stop: int, *, peer: bool) -> list[LoadRecord]:
        """Return the records with the items ``first`` to ``stop`` of all streams, which take turns. They are encoded
        as msgpack for Sightline, and as JSON for a peer."""
        encoded = encode_json if peer else encode
        return [
            LoadRecord(partition_for(name, PARTITIONS), name.encode(), encoded(self.record(name, *ends)), [])
            for ends in series.columns(first, stop, self.rows)
            for name in NAMES
        ]


class WindowOperator(Operator):
    """The mean of a sensor in windows of 10 s, with an event for each window above the limit."""

    service, topic, warm_up, cycle = "sense", READINGS, 750, series.PERIOD

    def site(self) -> Sequence[ConfigEntry]:
        """Return the sensors, each with a rule."""
        common: dict[str, Any] = {"quantity": "temperature", "unit": "Cel", "rate_hz": series.RATE_HZ}
        sensors = [SensorConfig(name=name, source="simulated:temperature", **common) for name in NAMES]
        return [*sensors, *(self.rule(f"hot-{name}", name) for name in NAMES)]

    def rule(self, name: str, sensor: str) -> SensorRule:
        """Return the rule of a sensor."""
        return ThresholdRule(name=name, sensor=sensor, above=series.LIMIT, window_s=series.WINDOW_S)

    def events(self, count: int) -> int:
        """Return the number of closed windows above the limit."""
        return series.closed_events(count)

    @cached_property
    def _values(self) -> dict[str, list[float]]:
        return {name: series.values(number, self.count) for number, name in enumerate(NAMES)}

    def record(self, stream: str, first: int, stop: int) -> Readings:
        """Return a record of readings."""
        times = series.times_ns(first, stop)
        return Readings(
            sensor=stream,
            epoch=1,
            seq=first,
            quantity="temperature",
            unit="Cel",
            times_ns=tuple(times),
            values=tuple(self._values[stream][first:stop]),
            quality=(0,) * len(times),
        )


class ColumnsOperator(WindowOperator):
    """The same over records of 100 readings."""

    rows = ROWS


class ThresholdOperator(WindowOperator):
    """An event when a reading begins to exceed the limit."""

    def rule(self, name: str, sensor: str) -> SensorRule:
        """Return the rule of a sensor."""
        return LimitRule(name=name, sensor=sensor, above=series.LIMIT, hysteresis=series.HYSTERESIS)

    def events(self, count: int) -> int:
        """Return how often the readings begin to exceed the limit."""
        return series.exceeded(count)


class LineOperator(Operator):
    """Tracks of the detections of a camera, with an event for each object that crosses a line."""

    service, topic, warm_up, cycle = "analyse", RESULTS, 56, series.CYCLE

    def __init__(self, records: int) -> None:
        super().__init__(records)
        self._boxes = series.boxes(self.count)

    def site(self) -> Sequence[ConfigEntry]:
        """Return the cameras, each with a line."""
        x = series.LINE_X / series.WIDTH
        line: dict[str, Any] = {"start": (x, 1.0), "end": (x, 0.0), "pipeline": "cars"}
        return [
            PipelineConfig(name="cars", model="cars", width=416, height=416),
            *(CameraConfig(name=name, source="simulated:road") for name in NAMES),
            *(LineRule(name=f"line-{name}", camera=name, **line) for name in NAMES),
        ]

    def events(self, count: int) -> int:
        """Return the number of vehicles that have crossed the line."""
        return series.crossings(count)

    def record(self, stream: str, first: int, stop: int) -> Result:
        """Return the record of a frame with the boxes of its vehicles."""
        at_ns, found = series.START_S * 10**9 + first * 10**9 // series.FPS, self._boxes[first]
        return Result(
            camera=stream,
            epoch=1,
            seq=first,
            lane="live",
            pipeline="cars",
            pipelines=("cars",),
            captured_ns=at_ns,
            finished_ns=at_ns,
            width=series.WIDTH,
            height=series.HEIGHT,
            source=FrameRef("frames", 0, first),
            outcome="classified",
            detections=tuple(Detection(box=Box(*box), label="car", class_id=1, score=0.9) for box in found),
        )


OPERATORS: dict[str, type[Operator]] = {
    "window": WindowOperator,
    "columns": ColumnsOperator,
    "threshold": ThresholdOperator,
    "line": LineOperator,
}


class OperatorBench:
    """One system with one operator, on topics of its own."""

    def __init__(self, broker: Broker, name: str, system: str, operator: Operator) -> None:
        self._broker, self._name, self._system, self._operator = broker, name, system, operator
        self._settings = KafkaSettings(bootstrap=broker.bootstrap, prefix=f"peers-{uuid.uuid4().hex[:8]}.")

    async def measure(self, step: Step) -> dict[str, Any]:
        """Start the system, measure it, stop it, and return the figures."""
        await self._prepare()
        operator = self._operator
        try:
            with tempfile.TemporaryDirectory() as folder:
                step("start")
                supervisor = Supervisor([self._spec(Path(folder))], Path(folder))
                failed = partial(failure, supervisor)
                async with collecting(self._settings, EVENTS, PARTITIONS) as arrivals:
                    async with holding(self._settings, operator.topic, self._records(0, operator.warm_up)) as release:
                        await release()
                    started_s = time.perf_counter()
                    async with supervisor:
                        wanted = STREAMS * operator.events(operator.warm_up)
                        await arrivals.wait(wanted, START_S, failed)
                        first_s = min(arrivals.at_s.values()) - started_s
                        figures = await self._burst(supervisor, step)
                        memory = pss_mb(supervisor.pid(operator.service) or 0)
        finally:
            await delete_topics(self._settings)
        return {"first_result_s": round(first_s, 2), **figures, "pss_mb": memory}

    async def _burst(self, supervisor: Supervisor, step: Step) -> dict[str, Any]:
        operator = self._operator
        wanted = STREAMS * (operator.events(operator.count) - operator.events(operator.warm_up))
        records = self._records(operator.warm_up, operator.count)
        async with (
            collecting(self._settings, EVENTS, PARTITIONS) as arrivals,
            holding(self._settings, operator.topic, records) as release,
        ):
            step("burst")
            meter = CpuMeter(pids_of(supervisor, self._broker))
            started_s = await release()
            await arrivals.wait(wanted, RESULTS_S, partial(failure, supervisor))
            cpu_ms = meter.ms_per(len(records))
        return {
            "per_core_s": round(1000 / cpu_ms[operator.service]),
            "records_per_s": round(len(records) / (max(arrivals.at_s.values()) - started_s)),
            "cpu_us": round(1000 * cpu_ms[operator.service], 3),
            "broker_cpu_us": round(1000 * cpu_ms[BROKER], 3),
            "driver_cpu_us": round(1000 * cpu_ms[DRIVER], 3),
            "events": len(arrivals.at_s),
        }

    async def _prepare(self) -> None:
        if self._system != SIGHTLINE:
            await create_topics(self._settings, (self._operator.topic, EVENTS), PARTITIONS)
            return
        await topicadmin.create(self._settings, partitions=PARTITIONS)
        async with KafkaLog(self._settings, "bench") as log:
            await publish(log, list(self._operator.site()))

    def _spec(self, folder: Path) -> ServiceSpec:
        service, settings = self._operator.service, self._settings
        if self._system == SIGHTLINE:
            return next(one for one in services(StackFiles(folder), settings, folder, 0) if one.name == service)
        topics = [f"--source={settings.topic(self._operator.topic)}", f"--target={settings.topic(EVENTS)}"]
        environment, program, options = PROGRAMS[self._system]
        arguments = [*topics, f"--group={settings.group(GROUP)}", f"--how={self._name}", *options]
        return peer_spec(service, environment, program, settings, arguments)

    def _records(self, first: int, stop: int) -> list[LoadRecord]:
        return self._operator.records(first, stop, peer=self._system != SIGHTLINE)
