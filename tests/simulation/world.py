"""One simulation: the agents' records, the processes and the faults, until every record is processed."""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from ingest.contract.codec import decode, decode_json
from ingest.contract.records import Alert, Event, Measure, Result
from ingest.contract.topics import (
    ALERTS,
    BATCHES,
    BATCHES_LATE,
    DEADLETTER,
    EVENTS,
    FRAMES,
    FRAMES_LATE,
    MEASURES,
    READINGS,
    RESULTS,
)
from ingest.exceptions import Fenced
from ingest.kafka.log import LogRecord, TopicPartition
from ingest.ledger.auditor import audit
from ingest.ledger.balance import Balance
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, ConfigEntry, MeasureConfig, PipelineConfig, SensorConfig
from ingest.site.topic.view import Config
from stream.alerts.stage import AlertStage
from stream.analyse.rules.count import CountRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.security.tailgating import TailgatingRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.stage import AnalyseStage
from stream.evidence.store import MemoryStore
from stream.prepare.stage import PrepareStage
from stream.sense.rules.anomaly import AnomalyRule
from stream.sense.rules.gap import GapRule
from stream.sense.rules.stuck import StuckRule
from stream.sense.rules.threshold import ThresholdRule
from stream.sense.stage import SenseStage
from tests.simulation.plan import STAGES, Fault, Plan
from tests.simulation.processes import (
    InThread,
    Killed,
    MakeProcess,
    NodeProcess,
    SimulatedLog,
    StageProcess,
)
from tests.simulation.scene import MAX_DELAY_S, Inputs, Sent

PARTITIONS = 2
ROUND_S = 1.5
"""Length of a round in seconds. In each round, the processes get the records that the agents have sent."""
MAX_ROUNDS = 100
"""Maximum number of rounds after the last record until no process has work."""
QUIET_ROUNDS, QUIET_S = 2, 6.0
"""Number and length of the rounds without a processed record after which no process has work. An open batch closes
within a round, and the last window of a sensor is due within nine seconds."""
COMMITTED = 0.7
"""Share of rounds after which a process has committed its positions."""
TOPICS = {
    "prepare": (FRAMES,),
    "prepare.late": (FRAMES_LATE,),
    "engine": (BATCHES, BATCHES_LATE),
    "analyse": (RESULTS,),
    "sense": (READINGS,),
    "alerts": (EVENTS,),
}


def site(plan: Plan) -> Config:
    """Return the configuration of a simulation: rules and measures for every camera and sensor."""
    overload = plan.overload
    pipeline = PipelineConfig(
        name="p",
        model="simulated",
        width=64,
        height=36,
        denoise="none",
        max_items=3,
        overload=overload.policy if overload else "shed",
        freshness_s=overload.freshness_s if overload else 0.0,
    )
    second = pipeline.model_copy(update={"name": "q", "max_items": 5, "max_delay_s": 2.0})
    found: list[ConfigEntry] = [pipeline, *([second] if plan.second_pipeline else [])]
    for camera in plan.cameras:
        of = {"camera": camera.name, "pipeline": "p"}
        line = {"start": (0.5, 1.0), "end": (0.5, 0.0)}
        right = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
        found += [
            CameraConfig(name=camera.name, source="simulated:road"),
            LineRule(name=f"{camera.name}-line", **of, **line),
            ZoneRule(name=f"{camera.name}-zone", **of, polygon=right, dwell_s=0.5, cooldown_s=2.0),
            TailgatingRule(name=f"{camera.name}-pair", **of, **line, within_s=2.0),
            CountRule(name=f"{camera.name}-crowd", **of, polygon=right, at_least=2),
            MeasureConfig(name=f"{camera.name}-passes", type="line", **of, **line),
            MeasureConfig(name=f"{camera.name}-stays", type="zone", **of, polygon=right),
        ]
    for sensor in plan.sensors:
        found += [
            SensorConfig(
                name=sensor.name,
                source="simulated:t",
                quantity="temperature",
                unit="Cel",
                rate_hz=1 / sensor.period_s,
                max_delay_s=MAX_DELAY_S,
            ),
            ThresholdRule(name=f"{sensor.name}-hot", sensor=sensor.name, window_s=5.0, above=50.0),
            ThresholdRule(name=f"{sensor.name}-hop", sensor=sensor.name, window_s=4.0, hop_s=2.0, above=50.0),
            ThresholdRule(name=f"{sensor.name}-run", sensor=sensor.name, session_gap_s=2.0, above=50.0),
            AnomalyRule(
                name=f"{sensor.name}-odd",
                sensor=sensor.name,
                window_s=1.0,
                min_readings=1,
                history_s=20.0,
                min_deviation=5.0,
                min_windows=3,
            ),
            StuckRule(name=f"{sensor.name}-stuck", sensor=sensor.name, for_s=6.0),
            GapRule(name=f"{sensor.name}-gap", sensor=sensor.name, for_s=4.0),
        ]
    return Config({entry.key: entry for entry in found})


@dataclass(frozen=True)
class Outcome:
    """The contents of the topics after a simulation, and the balance of the ledger.

    The balance of an undisturbed simulation is not computed.
    """

    balance: Balance | None
    results: tuple[Result, ...]
    events: tuple[Event, ...]
    measures: tuple[Measure, ...]
    alerts: tuple[Alert, ...]
    letters: tuple[LogRecord, ...]
    inputs: Inputs
    config: Config
    records: tuple[LogRecord, ...]
    """The records of the results."""
    drained: bool
    """Whether the processes finished all work."""


class _Group:
    """The two processes of a stage, and the partitions that each should own."""

    def __init__(self, make: MakeProcess, tps: Sequence[TopicPartition]) -> None:
        self._make, self._tps = make, tps
        self.processes: list[StageProcess | NodeProcess | None] = [make(), make()]
        self.zombies: list[StageProcess | NodeProcess] = []
        """Processes that still work on partitions that they have lost."""
        self.planned: dict[int, Fault] = {}
        """The kill that each process will meet at one of its next writes."""
        self.back_s = [0.0, 0.0]
        self.idle_until_s = [0.0, 0.0]
        self._owners = 0

    @property
    def running(self) -> list[tuple[int, StageProcess | NodeProcess]]:
        return [(number, process) for number, process in enumerate(self.processes) if process]

    async def deal(self, owners: int | None = None, *, committed: bool = True) -> None:
        """Revoke all partitions, and deal them to the running processes by the bits of ``owners``."""
        self._owners = self._owners if owners is None else owners
        for _, process in self.running:
            await process.revoke(committed=committed)
        await self._assign()

    async def deal_unnoticed(self, owners: int) -> None:
        """Deal the partitions to new processes, while the old ones still work on them."""
        self._owners, self.planned = owners, {}
        self.zombies += [process for _, process in self.running]
        self.processes = [self._make(), self._make()]
        await self._assign()

    def plan_kill(self, fault: Fault) -> None:
        """Let a process be killed at one of its next writes."""
        if process := self.processes[fault.process]:
            self.planned[fault.process] = fault
            process.log.kill_at(fault.writes, applied=fault.applied)

    async def end(self, number: int, now_s: float) -> None:
        """Note that a process has ended. If it was killed, it restarts later, and the other one may take over."""
        fault = self.planned.pop(number, None)
        self.processes[number] = None
        self.back_s[number] = now_s + (fault.length_s if fault else 0.0)
        if fault and fault.moved and self.running:
            await self.deal()

    async def restart(self, now_s: float) -> None:
        """Start the processes whose time has come, and deal the partitions anew."""
        for number in (0, 1):
            if self.processes[number] is None and self.back_s[number] <= now_s:
                self.processes[number] = self._make()
                await self.deal()

    async def _assign(self) -> None:
        numbers = [number for number, _ in self.running]
        for number, process in self.running:
            wanted = (self._owners >> bit & 1 for bit in range(len(self._tps)))
            owners = (one if one in numbers else numbers[0] for one in wanted)
            await process.assign({tp for tp, owner in zip(self._tps, owners, strict=True) if owner == number})


class World:
    """A simulation of one plan. ``loop`` runs in another thread, and opens the partitions of the stage ``alerts``."""

    def __init__(self, plan: Plan, inputs: Inputs, loop: asyncio.AbstractEventLoop) -> None:
        self._plan, self._inputs = plan, inputs
        self._clock = clock = ManualClock()
        self._log = log = SimulatedLog(PARTITIONS, clock)
        self._config = config = site(plan)
        self._batches = plan.overload.batches if plan.overload else None
        self._sent: list[Sent] = []
        pipelines, store = config.of(PipelineConfig), MemoryStore()
        makers: dict[str, MakeProcess] = {
            "prepare": lambda: StageProcess(PrepareStage("live", config, clock), log, clock),
            "prepare.late": lambda: StageProcess(PrepareStage("late", config, clock), log, clock),
            "engine": lambda: NodeProcess(log, clock, pipelines, inputs.objects, inputs.failing),
            "analyse": lambda: StageProcess(AnalyseStage(config, PARTITIONS), log, clock),
            "sense": lambda: StageProcess(SenseStage(config, PARTITIONS, clock=clock), log, clock),
            "alerts": lambda: StageProcess(InThread(AlertStage(store, PARTITIONS, clock), loop), log, clock),
        }
        self._groups = {
            stage: _Group(
                makers[stage], [TopicPartition(topic, p) for topic in TOPICS[stage] for p in range(PARTITIONS)]
            )
            for stage in STAGES
            if stage != "alerts" or plan.alerts
        }

    async def run(self) -> Outcome:
        """Send all records, cause all faults, and return the contents of the topics."""
        for group in self._groups.values():
            await group.deal(0)
        faults, rest, number = list(self._plan.faults), list(self._inputs.sent), 0
        while rest:
            due_s = min(one.at_s for one in (*rest[:1], *faults[:1]))
            now_s = self._clock.seconds = (int(due_s / ROUND_S) + 1) * ROUND_S
            number += 1
            while faults and faults[0].at_s <= now_s:
                await self._cause(faults.pop(0))
            while rest and rest[0].at_s <= now_s:
                self._sent.append(rest.pop(0))
                await self._log.produce(self._sent[-1].record)
            for group in self._groups.values():
                await group.restart(now_s)
            await self._round(random.Random(f"{self._plan.seed}/{number}") if self._plan.shuffled else None)
        return await self._outcome(drained=await self._drain())

    async def _round(self, chance: random.Random | None) -> int:
        """Let every process work. Return 0 if none had work.

        With ``chance``, the partitions take turns in random order, and each processes a random number of records.
        """
        turns = [
            (stage, number, tp)
            for stage, group in self._groups.items()
            for number, process in group.running
            if group.idle_until_s[number] <= self._clock.seconds
            for tp in sorted(process.tps)
        ]
        if chance:
            chance.shuffle(turns)
        fed = 0
        for stage, number, tp in turns:
            process = self._groups[stage].processes[number]
            if process and tp in process.tps and process.waits(tp):
                most = chance.choice((0, 1, 2, 3, 5, None)) if chance else None
                fed += await self._work(stage, number, process.step(tp, most))
        for stage, group in self._groups.items():
            for number, process in group.running:
                fed += await self._rest(stage, number, process)
            group.zombies = [zombie for zombie in group.zombies if await _outlives(zombie)]
            for _, process in group.running:
                if chance is None or chance.random() < COMMITTED:
                    await process.log.commit()
        return fed

    async def _rest(self, stage: str, number: int, process: StageProcess | NodeProcess) -> int:
        """Let a process do the work that is due without a record. Return 1 if this ends the process, else 0.

        The stage ``sense`` does this work only if no readings wait, because a window of a silent sensor is evaluated
        with the readings that the stage has.
        """
        idle = self._groups[stage].idle_until_s[number] > self._clock.seconds
        if idle or (stage == "sense" and any(map(process.waits, process.tps))):
            return 0
        return await self._work(stage, number, process.rest(self._batches))

    async def _work(self, stage: str, number: int, work: Awaitable[int]) -> int:
        """Let a process work. Return the number of processed records, or 1 if a kill or a fenced writer ends it."""
        try:
            return await work
        except (Killed, Fenced):
            await self._groups[stage].end(number, self._clock.seconds)
            return 1

    async def _cause(self, fault: Fault) -> None:
        if fault.stage and fault.stage not in self._groups:
            return
        match fault.kind:
            case "clock":
                self._clock.started_ns += round(fault.step_s * 1e9)
            case "repeat":
                await self._repeat(fault.writes)
            case "kill":
                self._groups[fault.stage].plan_kill(fault)
            case "stall":
                self._groups[fault.stage].idle_until_s[fault.process] = fault.at_s + fault.length_s
            case "rebalance":
                await self._groups[fault.stage].deal(fault.owners, committed=fault.applied)
            case "zombie":
                await self._groups[fault.stage].deal_unnoticed(fault.owners)

    async def _repeat(self, count: int) -> None:
        """Send the last records of every camera and sensor a second time."""
        streams: defaultdict[tuple[bytes | None, str], list[Sent]] = defaultdict(list)
        for one in self._sent:
            streams[one.record.key, one.record.topic].append(one)
        for records in streams.values():
            for one in records[-count:]:
                await self._log.produce(one.record)

    async def _drain(self) -> bool:
        """Let all processes work until no record waits. Return False if they do not come to an end."""
        self._batches, quiet = None, 0
        for _ in range(MAX_ROUNDS):
            self._clock.seconds += QUIET_S if quiet else ROUND_S
            for group in self._groups.values():
                group.idle_until_s, group.zombies = [0.0, 0.0], []
                await group.restart(math.inf)
            quiet = 0 if await self._round(None) else quiet + 1
            if quiet > QUIET_ROUNDS:
                return True
        return False

    async def _outcome(self, *, drained: bool) -> Outcome:
        records = await self._all(RESULTS)
        return Outcome(
            await audit(self._log, wait_s=0.0, clock=self._clock) if self._plan.audited else None,
            tuple(decode(Result, record.value) for record in records),
            tuple(decode_json(Event, record.value) for record in await self._all(EVENTS)),
            tuple(decode_json(Measure, record.value) for record in await self._all(MEASURES)),
            tuple(decode_json(Alert, record.value) for record in await self._all(ALERTS)),
            tuple(await self._all(DEADLETTER)),
            self._inputs,
            self._config,
            tuple(records),
            drained,
        )

    async def _all(self, topic: str) -> list[LogRecord]:
        return [
            record
            for partition, end in (await self._log.ends(topic)).items()
            async for record in self._log.read(topic, partition, 0, end)
        ]


async def _outlives(zombie: StageProcess | NodeProcess) -> bool:
    """Let a process work on all partitions that it has lost. Return False once it is fenced or killed."""
    try:
        for tp in sorted(zombie.tps):
            await zombie.step(tp, None)
            await zombie.rest(None)
    except (Fenced, Killed):
        return False
    return True
