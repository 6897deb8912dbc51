"""Tests of joins from results and readings to events, in memory: analyse, sense, restarts and reloads."""

from __future__ import annotations

import random
from functools import cache

import pytest

from edge_agent.sources.simulated import COUNTING_LINES, SceneConfig, SimulatedScene
from edge_agent.sources.simulated.actors import crossings_between
from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode
from ingest.contract.records import GOOD, Detection, Event, FrameRef, Readings, Result
from ingest.contract.topics import EVENTS, READINGS, RESULTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, ConfigEntry, SensorConfig
from ingest.site.topic.view import Config
from stream.analyse.rules.products.jam import JamRule
from stream.analyse.rules.security.unattended import UnattendedRule
from stream.analyse.rules.traffic.red_light import RedLightRule
from stream.analyse.stage import AnalyseStage
from stream.join.rule import JoinRule
from stream.runner.memory import MemoryRunner
from stream.sense.stage import SenseStage

FPS, SECONDS, RED_S = 5, 45, 7
BEGIN_NS = 1_800_000_000 * 10**9
PARTITIONS = 4
CAMERA = CameraConfig(name="road", source="simulated:road", site="here")
LIGHT = SensorConfig(name="light", source="simulated:t", site="here", quantity="signal", unit="1")
START, END = COUNTING_LINES["road"]
RED = RedLightRule(
    name="red", camera="road", pipeline="p", sensor="light", above=0.5, start=START, end=END, grace_s=0.0
)


@cache
def results() -> tuple[Result, ...]:
    scene = SimulatedScene(SceneConfig("road", seed=1, fps=FPS, width=640, height=360, noise_sigma=0.0))
    return tuple(
        Result(
            camera="road",
            epoch=5,
            seq=seq,
            lane="live",
            pipeline="p",
            pipelines=("p",),
            captured_ns=BEGIN_NS + round(seq / FPS * 1e9),
            finished_ns=BEGIN_NS + round(seq / FPS * 1e9),
            width=640,
            height=360,
            source=FrameRef("frames", 0, seq),
            outcome="classified",
            detections=tuple(
                Detection(box=one.box, label=one.label, class_id=1, score=0.9) for one in scene.render(seq).objects
            ),
        )
        for seq in range(FPS * SECONDS)
    )


def is_red(at_s: float) -> bool:
    """Return whether the light is red: it changes every seven seconds, at whole seconds."""
    return int(at_s) // RED_S % 2 == 1


def readings(second: int) -> Readings:
    """Return the ten readings of one second."""
    return Readings(
        sensor="light",
        epoch=1,
        seq=10 * second,
        quantity="signal",
        unit="1",
        times_ns=tuple(BEGIN_NS + second * 10**9 + n * 10**8 for n in range(10)),
        values=(float(is_red(second)),) * 10,
        quality=(GOOD,) * 10,
    )


class Site:
    """A log with analyse and sense workers. ``kill`` replaces both by new ones, which continue at the last
    commits."""

    def __init__(self, *rules: ConfigEntry) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(partitions=PARTITIONS, clock=self.clock)
        self.config = Config({entry.key: entry for entry in (CAMERA, LIGHT, *rules)})
        self.kill()

    def kill(self) -> None:
        stages = (AnalyseStage(self.config, PARTITIONS), SenseStage(self.config, PARTITIONS, clock=self.clock))
        self.stages = stages
        self.runners = [MemoryRunner(stage, self.log, self.clock) for stage in stages]

    async def run(self) -> None:
        for runner in self.runners:
            await runner.run()

    async def feed(self, second: int, *, with_readings: bool = True) -> None:
        """Write the results and readings of one second."""
        for result in results()[second * FPS : (second + 1) * FPS]:
            await self.log.produce(Outgoing(RESULTS, 1, encode(result), headers=h.frame_headers([result.id], "live")))
        if with_readings:
            await self.log.produce(Outgoing(READINGS, 2, encode(readings(second))))
        self.clock.advance(1.0)

    async def events(self) -> list[Event]:
        found = []
        for partition, end in (await self.log.ends(EVENTS)).items():
            found += [decode_json(Event, one.value) async for one in self.log.read(EVENTS, partition, 0, end)]
        return found


async def events_of(*rules: JoinRule) -> list[Event]:
    site = Site(*rules)
    for second in range(SECONDS):
        await site.feed(second)
        await site.run()
    return await site.events()


async def test_crossings_while_a_sensor_says_red_become_events_with_both_sources_and_a_picture() -> None:
    truth = crossings_between(SceneConfig("road", seed=1), 0.0, SECONDS - 3.0)
    red = [one for one in truth if is_red(one.at_s)]
    events = [one for one in await events_of(RED) if one.data.captured_ns < BEGIN_NS + (SECONDS - 2) * 10**9]
    assert 5 < len(red) < len(truth)
    assert abs(len(events) - len(red)) <= 1  # a crossing within half a frame of a change of the light
    for event in events:
        data = event.data
        assert (event.type, data.camera, data.sensor) == ("sightline.signal.red", "road", "light")
        assert data.frame == FrameRef("frames", 0, data.seq)
        assert data.overlay.box is not None
        assert f"crossed red going {data.details['direction']} while light is above 0.5" in data.summary


QUIET = UnattendedRule(
    name="quiet", camera="road", pipeline="p", sensor="light", above=0.5, labels=("car", "truck"), for_s=1.0
)
JAM = JamRule(
    name="jam",
    camera="road",
    pipeline="p",
    sensor="light",
    below=0.5,
    start=START,
    end=END,
    for_s=2.0,
    cooldown_s=5.0,
)


@pytest.mark.parametrize("seed", range(2))
async def test_killed_workers_write_each_event_of_an_undisturbed_run_exactly_once(seed: int) -> None:
    chance, rules = random.Random(seed), (RED, QUIET, JAM)
    whole = await events_of(*rules)
    assert {one.data.rule for one in whole} >= {"red", "jam"}
    site = Site(*rules)
    for second in range(SECONDS):
        await site.feed(second)
        if chance.random() < 0.5:
            await site.runners[chance.randrange(2)].run()
        if chance.random() < 0.2:
            site.kill()
    await site.run()
    await site.run()
    found = await site.events()
    assert sorted(one.id for one in found) == sorted(one.id for one in whole)
    assert {one.id: one for one in found} == {one.id: one for one in whole}


async def test_a_changed_join_rule_applies_while_the_workers_run_and_an_unchanged_one_keeps_its_state() -> None:
    site, other = Site(RED), RED.model_copy(update={"name": "other", "above": 2.0})
    for second in range(SECONDS):
        if second == 3:
            config = Config({**site.config.entries, other.key: other})
        elif second == 16:
            config = Config({**site.config.entries, other.key: other.model_copy(update={"above": 0.5})})
        if second in (3, 16):
            for stage in site.stages:
                stage.configure(config)
        await site.feed(second)
        await site.run()
    events = await site.events()
    late = {
        one.data.track for one in events if one.data.rule == "red" and one.data.captured_ns > BEGIN_NS + 16 * 10**9
    }
    assert {one.data.track for one in events if one.data.rule == "other"} == late != set()
    assert {one.id for one in events if one.data.rule == "red"} == {one.id for one in await events_of(RED)}


async def test_a_door_contact_that_sends_only_changes_is_joined_although_it_is_silent() -> None:
    """The contact has sent one reading, at the beginning, and the road is empty of the labels of the rule."""
    rule = QUIET.model_copy(update={"labels": ("boat",), "for_s": 10.0, "wait_s": 3.0})
    site = Site(rule)
    for second in range(20):
        await site.feed(second, with_readings=False)
        if second == 0:
            opened = readings(RED_S).model_copy(update={"times_ns": tuple(BEGIN_NS + n for n in range(10))})
            await site.log.produce(Outgoing(READINGS, 2, encode(opened)))
        await site.run()
    (event,) = await site.events()
    assert event.data.captured_ns == BEGIN_NS + 10 * 10**9
    assert event.data.summary == "no boat in quiet while light is above 0.5, for 10.0 s"


async def test_a_join_waits_for_readings_that_the_agent_of_the_sensor_may_hold_back() -> None:
    """The agent sends one record every ten seconds. The light is red from 7 s to 14 s and from 21 s to 28 s."""
    empty = QUIET.model_copy(update={"labels": ("boat",), "wait_s": 1.0})
    rules = [empty.model_copy(update={"name": f"{for_s}", "for_s": float(for_s)}) for for_s in (6, 8)]
    site = Site(LIGHT.model_copy(update={"max_delay_s": 10.0}), *rules)
    for second in range(30):
        await site.feed(second, with_readings=False)
        if second % 10 == 9:
            parts = [readings(one) for one in range(second - 9, second + 1)]
            times = tuple(at_ns for one in parts for at_ns in one.times_ns)
            values = tuple(value for one in parts for value in one.values)
            fields = {"times_ns": times, "values": values, "quality": (GOOD,) * len(values)}
            await site.log.produce(Outgoing(READINGS, 2, encode(parts[0].model_copy(update=fields))))
        await site.run()
    reported = [(event.data.rule, event.data.captured_ns - BEGIN_NS) for event in await site.events()]
    assert reported == [("6", 13 * 10**9), ("6", 27 * 10**9)]
