"""Tests of the judge of canaries, on the log in memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engines.repository.canary import read_canary, start_canary, trail_of
from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode
from ingest.contract.identity import LATE, LIVE, FrameId
from ingest.contract.records import Alert, Box, Event, FrameRef, Result, ShadowDifference, ShadowRecord
from ingest.contract.topics import ALERTS, CONFIG, DEADLETTER, EVENTS, RESULTS, SHADOW
from ingest.exceptions import LogUnavailable
from ingest.kafka.log import LogRecord, Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import PipelineConfig
from ingest.site.topic.store import publish
from stream.alerts.stage import AlertStage
from stream.evidence.store import MemoryStore
from stream.runner.memory import MemoryRunner
from tests.engines.repository.test_canary import CAMERAS, HALF, copied
from training.canary.meter import SkillMeter
from training.canary.skill import LiveSkill, SkillLimits
from training.canary.watch import event_of, roll_back

LIMITS = SkillLimits(window_s=60.0, min_frames=10, min_compared=5, min_events=5)
BEGIN_NS = ManualClock().started_ns
SERVED = [camera for camera in CAMERAS if HALF.serves(camera)]
OTHERS = [camera for camera in CAMERAS if not HALF.serves(camera)]
BOX = Box(0.0, 0.0, 9.0, 9.0)


@dataclass
class SkillBench:
    """A log in memory on which a canary begins 60 s after the first record."""

    clock: ManualClock = field(default_factory=ManualClock)
    seq: int = 0

    def __post_init__(self) -> None:
        self.log = MemoryLog(1, self.clock)
        self.canary = HALF.model_copy(update={"since_ns": BEGIN_NS + 60 * 10**9})

    async def write(self, topic: str, value: bytes, camera: str, **headers: bytes) -> None:
        self.seq += 1
        own = h.frame_headers([FrameId(camera, 1, self.seq)], LIVE, pipeline="p")
        await self.log.produce(Outgoing(topic, 0, value, camera.encode(), {**own, **headers}))

    async def result(self, camera: str, model: str) -> None:
        result = Result(
            camera=camera,
            epoch=1,
            seq=self.seq,
            lane=LIVE,
            captured_ns=1,
            width=64,
            height=64,
            source=FrameRef("frames", 0, 0),
            pipeline="p",
            pipelines=("p",),
            finished_ns=1,
            outcome="classified",
            model=model,
        )
        await self.write(RESULTS, encode(result), camera)

    async def usual(self, seconds: float, events: int = 6) -> None:
        """Write the records of all cameras for some seconds: a result each second, and some events."""
        for second in range(round(seconds)):
            self.clock.advance(1.0)
            runs = self.clock.now_ns() >= self.canary.since_ns
            for camera in CAMERAS:
                await self.result(camera, "regions@2" if runs and self.canary.serves(camera) else "regions@1")
                if second < events:
                    await self.write(EVENTS, b"{}", camera)

    async def failed(self, camera: str, **headers: bytes) -> None:
        failure = h.failure_headers(h.Failure("batches", 0, 0, "engine", "InferenceFailed", "shape"))
        await self.write(DEADLETTER, b"", camera, **{**failure, **headers})

    async def compared(
        self, *, agreed: int, missed: int, served: str = "regions@2", candidate: str = "regions@1"
    ) -> None:
        differences = tuple(ShadowDifference(form="missed", box=BOX, label="car", score=0.9) for _ in range(missed))
        record = ShadowRecord(
            pipeline="p",
            served=served,
            candidate=candidate,
            written_ns=1,
            camera=SERVED[0],
            agreed={"car": agreed} if agreed else {},
            differences=differences,
        )
        await self.write(SHADOW, encode(record), SERVED[0])

    async def skill(self, meter: SkillMeter | None = None) -> LiveSkill:
        self.clock.advance(0.001)
        meter = meter or SkillMeter(self.log, self.canary, LIMITS)
        return await meter.measure("regions@1", self.clock.now_ns())


@pytest.fixture
async def bench() -> SkillBench:
    made = SkillBench()
    await made.usual(59.0)
    return made


async def test_a_canary_with_the_usual_skill_is_not_rolled_back(bench: SkillBench) -> None:
    await bench.usual(40.0)
    for _ in range(6):
        await bench.compared(agreed=2, missed=0)
    skill = await bench.skill()
    assert skill.reasons(LIMITS) == []
    assert (skill.canary.frames, skill.compared, skill.agreement) == (40 * len(SERVED), 6, 1.0)
    assert skill.canary.events == 6 * len(SERVED)


async def test_only_failed_frames_of_its_own_cameras_roll_a_canary_back(
    bench: SkillBench,
) -> None:
    await bench.usual(20.0)
    for _ in range(5):
        await bench.failed(OTHERS[0])
    assert (await bench.skill()).reasons(LIMITS) == []
    for _ in range(5):
        await bench.failed(SERVED[0])
    assert any("of its frames failed" in reason for reason in (await bench.skill()).reasons(LIMITS))


async def test_a_canary_that_disagrees_with_the_promoted_version_is_rolled_back(bench: SkillBench) -> None:
    await bench.usual(20.0)
    for _ in range(9):
        await bench.compared(agreed=0, missed=2, served="regions@1")  # the promoted version itself
    assert (await bench.skill()).reasons(LIMITS) == []
    for _ in range(9):
        await bench.compared(agreed=1, missed=1)
    assert any("on 50.0% of the objects" in reason for reason in (await bench.skill()).reasons(LIMITS))


@pytest.mark.parametrize("candidate", ["regions@2", "regions@3"])
async def test_the_skill_of_a_canary_uses_only_comparisons_with_the_promoted_version(
    bench: SkillBench, candidate: str
) -> None:
    await bench.usual(20.0)
    for _ in range(9):
        await bench.compared(agreed=1, missed=1, candidate=candidate)
    skill = await bench.skill()
    assert (skill.compared, skill.agreement) == (0, 1.0)


@pytest.mark.parametrize(("cameras", "reasons"), [(SERVED, 1), (OTHERS + SERVED, 0)])
async def test_a_change_in_the_number_of_events_rolls_a_canary_back_only_if_other_cameras_have_no_such_change(
    bench: SkillBench, cameras: list[str], reasons: int
) -> None:
    await bench.usual(30.0)
    for _ in range(40):
        for camera in cameras:
            await bench.write(EVENTS, b"{}", camera)
    assert len((await bench.skill()).reasons(LIMITS)) == reasons


async def test_a_canary_is_not_rolled_back_by_few_failed_frames() -> None:
    bench = SkillBench()
    await bench.usual(60.0)
    await bench.failed(SERVED[0])
    assert (await bench.skill()).reasons(LIMITS) == []


async def test_a_canary_that_fails_on_every_frame_is_rolled_back() -> None:
    bench = SkillBench()
    await publish(bench.log, [PipelineConfig(name="p", model="regions", width=64, height=64)])
    bench.clock.advance(60.0)
    for _ in range(10):
        await bench.failed(SERVED[0])
    assert (await bench.skill()).reasons(LIMITS) == ["100.0% of its frames failed: expected at most 1.0%"]


async def test_failed_late_frames_and_failed_frames_with_a_damaged_pipeline_name_do_not_count_against_a_canary(
    bench: SkillBench,
) -> None:
    await bench.usual(20.0)
    for _ in range(9):
        await bench.failed(SERVED[0], **{h.LANE: LATE.encode()})
        await bench.failed(SERVED[0], **{h.PIPELINE: b"\xff"})
    skill = await bench.skill()
    assert (skill.canary.errors, skill.reasons(LIMITS)) == (0, [])


async def test_failures_before_the_judged_period_do_not_roll_a_canary_back(bench: SkillBench) -> None:
    await bench.usual(20.0)
    for _ in range(9):
        await bench.failed(SERVED[0])
    await bench.usual(LIMITS.window_s + 1)
    assert (await bench.skill()).reasons(LIMITS) == []


async def test_a_repeated_canary_measurement_reads_only_new_records_and_equals_a_measurement_from_scratch(
    bench: SkillBench,
) -> None:
    meter, read_offsets = SkillMeter(bench.log, bench.canary, LIMITS), []
    read = bench.log.read

    def noted(topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        read_offsets.extend((topic, offset) for offset in range(start, stop) if topic != CONFIG)
        return read(topic, partition, start, stop)

    bench.log.read = noted  # type: ignore[method-assign]
    for seconds in (20.0, 20.0, 40.0, 100.0):
        await bench.usual(seconds)
        await bench.failed(SERVED[0])
        await bench.compared(agreed=2, missed=1)
        found, read_twice = await bench.skill(meter), len(read_offsets) - len(set(read_offsets))
        assert (found.canary.frames > 0, read_twice) == (True, 0)
        bench.log.read = read  # type: ignore[method-assign]
        assert await SkillMeter(bench.log, bench.canary, LIMITS).measure("regions@1", bench.clock.now_ns()) == found
        bench.log.read = noted  # type: ignore[method-assign]


async def test_the_memory_of_a_canary_measurement_depends_on_its_duration_and_not_on_its_number_of_records(
    bench: SkillBench,
) -> None:
    await bench.usual(20.0)
    meter = SkillMeter(bench.log, bench.canary, LIMITS)
    assert (await bench.skill(meter)).canary.frames == 20 * len(SERVED)
    assert sum(len(notes) for notes in meter._results._notes.values()) == 20


async def test_a_measurement_after_an_outage_in_the_middle_of_a_partition_counts_each_record_once(
    bench: SkillBench,
) -> None:
    await bench.usual(20.0)
    meter, read = SkillMeter(bench.log, bench.canary, LIMITS), bench.log.read

    async def broken(topic: str, partition: int, start: int, stop: int) -> AsyncGenerator[LogRecord, None]:
        async for record in read(topic, partition, start, stop):
            if record.topic == RESULTS and record.offset == start + 7:
                raise LogUnavailable("gone")
            yield record

    bench.log.read = broken  # type: ignore[method-assign]
    with pytest.raises(LogUnavailable):
        await bench.skill(meter)
    bench.log.read = read  # type: ignore[method-assign]
    assert await bench.skill(meter) == await SkillMeter(bench.log, bench.canary, LIMITS).measure(
        "regions@1", bench.clock.now_ns()
    )


async def test_a_rollback_ends_the_canary_with_an_event_an_alert_and_an_audit_line(
    tmp_path: Path,
) -> None:
    clock, repository = ManualClock(), copied(tmp_path)
    log = MemoryLog(1, clock)
    canary = start_canary(repository, "regions", 2, 0.5, clock.now_ns())
    await roll_back(log, repository, canary, ["half of its frames failed"], clock.now_ns())
    assert read_canary(repository, "regions") is None
    last = trail_of(repository, "regions")[-1]
    assert (last.change, last.reason, last.version) == ("rolled back", "half of its frames failed", 2)
    (record,) = [one async for one in log.read(EVENTS, 0, 0, 1)]
    event = decode_json(Event, record.value)
    assert event.data.summary == "canary regions@2 was rolled back: half of its frames failed"
    await MemoryRunner(AlertStage(MemoryStore(), 1, clock), log, clock).run()
    alerts = [decode_json(Alert, one.value) async for one in log.read(ALERTS, 0, 0, (await log.ends(ALERTS))[0])]
    assert [(one.data.event, one.data.severity) for one in alerts] == [(event.id, "critical")]


async def test_a_canary_that_was_replaced_while_it_was_measured_is_not_rolled_back(tmp_path: Path) -> None:
    log, repository = MemoryLog(1, ManualClock()), copied(tmp_path)
    measured = start_canary(repository, "regions", 2, 0.5, 1)
    replacing = start_canary(repository, "regions", 2, 0.6, 2)
    assert await roll_back(log, repository, measured, ["half of its frames failed"], 3) is None
    assert read_canary(repository, "regions") == replacing
    assert (await log.ends(EVENTS))[0] == 0


def test_a_repeated_rollback_of_a_canary_has_the_same_event_id() -> None:
    assert event_of(HALF, "one", 5).id == event_of(HALF, "two", 9).id
    assert event_of(HALF, "one", 5).id != event_of(HALF.model_copy(update={"since_ns": 2}), "one", 5).id
