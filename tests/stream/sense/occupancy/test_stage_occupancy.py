"""Tests of the occupancy that the stage ``sense`` writes: records per minute, events, corrections and restarts."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, time
from pathlib import Path

import pytest

from ingest.contract.codec import decode_json, encode_json
from ingest.contract.records import Event, Measure
from ingest.contract.records.measure import MinuteTally
from ingest.contract.topics import EVENTS, MEASURES
from ingest.exceptions import ConfigError
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import ConfigEntry, MeasureConfig
from ingest.site.file import load
from ingest.site.topic.view import Config
from stream import readback
from stream.analyse.measures.book import MeasureBook
from stream.analyse.measures.minute import ClosedMinute
from stream.rules import validated_site
from stream.runner.memory import MemoryRunner
from stream.sense.occupancy.count import KEPT_NS
from stream.sense.occupancy.processor import OccupancyStep
from stream.sense.rules.occupancy import OccupancyRule
from stream.sense.stage import SenseStage

MIDNIGHT_NS = 1_451_865_600 * 10**9
MINUTE_NS = 60 * 10**9
NORTH, SOUTH = (
    MeasureConfig(name=name, type="line", camera="door", pipeline="people", start=(0.5, 1.0), end=(0.5, 0.0))
    for name in ("north", "south")
)
HALL = OccupancyRule(
    name="hall", doors={"north": "forward", "south": "backward"}, reset_at=time(0), above=10, hysteresis=3
)


def record_of(
    door: str, minute: int, forward: float, backward: float, lane: str = "live", revision: int = 0
) -> Measure:
    sums = {"person.forward": forward, "person.backward": backward}
    return Measure(
        id=f"{door}.{minute}.{revision}",
        name=door,
        type="line",
        camera="door",
        pipeline="people",
        start_ns=MIDNIGHT_NS + minute * MINUTE_NS,
        revision=revision,
        observed=1.0,
        values=sums,
        parts={lane: MinuteTally(sums=sums, observed_s=60.0, closed_by=(f"1-{minute}",))},
    )


def passing(minute: int, entered: float, left: float) -> list[Measure]:
    """Return the records of a minute in which objects enter by the north door and leave by the south door."""
    return [record_of("north", minute, entered, 0.0), record_of("south", minute, left, 0.0)]


class Hall:
    """The log of a site, and a worker of ``sense`` that forgets its state when ``kill`` is called."""

    def __init__(self, *rules: ConfigEntry) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(1, clock=self.clock)
        self.entries = (NORTH, SOUTH, *(rules or (HALL,)))
        self.kill()

    def kill(self) -> None:
        self.stage = SenseStage(Config({entry.key: entry for entry in self.entries}), 1)
        self.runner = MemoryRunner(self.stage, self.log, ManualClock())

    async def feed(self, found: Iterable[Measure]) -> None:
        for one in found:
            self.clock.seconds = max(self.clock.seconds, (one.start_ns - MIDNIGHT_NS) / 1e9)
            await self.log.produce(Outgoing(MEASURES, 0, encode_json(one), key=b"door"))
        await self.runner.run()
        await self.runner.run()  # the records that the stage has written on its own topic

    async def counts(self) -> list[Measure]:
        end = (await self.log.ends(MEASURES))[0]
        found = [decode_json(Measure, one.value) async for one in self.log.read(MEASURES, 0, 0, end)]
        return [one for one in found if one.type == "occupancy"]

    async def events(self) -> list[Event]:
        end = (await self.log.ends(EVENTS))[0]
        return [decode_json(Event, one.value) async for one in self.log.read(EVENTS, 0, 0, end)]


async def test_the_occupancy_stage_writes_one_record_with_the_number_of_objects_inside_each_minute() -> None:
    hall = Hall()
    for minute, (entered, left) in enumerate([(5, 0), (4, 2), (0, 9)]):
        await hall.feed(passing(minute, entered, left))
    found = await hall.counts()
    assert [one.values["inside"] for one in found] == [5.0, 7.0, 0.0]
    assert found[-1].values == {"inside": 0.0, "entries": 9.0, "exits": 11.0, "unmatched_exits": 2.0}
    assert (found[-1].name, found[-1].camera, found[-1].start_ns) == ("hall", "door", MIDNIGHT_NS + 2 * MINUTE_NS)


async def test_a_count_above_the_limit_is_reported_again_only_after_it_fell_by_the_hysteresis() -> None:
    hall = Hall()
    for minute, (entered, left) in enumerate([(11, 0), (2, 4), (3, 0), (0, 5), (4, 0)]):
        await hall.feed(passing(minute, entered, left))  # 11, 9, 12, 7, 11
    found = await hall.events()
    assert [one.data.details["inside"] for one in found] == [11.0, 11.0]
    assert found[0].data.summary == "11 inside of hall, above 10"


async def test_an_occupancy_below_the_lower_limit_is_reported_only_after_that_limit_was_reached_on_the_same_day() -> (
    None
):
    hall = Hall(HALL.model_copy(update={"above": None, "below": 4, "hysteresis": 0}))
    for minute, (entered, left) in enumerate([(1, 0), (4, 0), (0, 3), (0, 1)]):
        await hall.feed(passing(minute, entered, left))
    (event,) = await hall.events()
    assert event.data.details["inside"] == 2.0


async def test_the_cooldown_delays_the_report_of_a_count_that_stays_above_the_limit() -> None:
    hall = Hall(HALL.model_copy(update={"hysteresis": 0, "cooldown_s": 180.0}))
    for minute, (entered, left) in enumerate([(11, 0), (0, 2), (3, 0), (1, 0), (1, 0)]):
        await hall.feed(passing(minute, entered, left))
    assert [one.data.details["inside"] for one in await hall.events()] == [11.0, 13.0]


def busy_days() -> list[Measure]:
    """Return the minutes of three days, with late minutes and corrected minutes."""
    chance = random.Random(7)
    found: list[Measure] = []
    for minute in range(0, 3 * 24 * 60, 97):
        found += passing(minute, chance.randrange(8), chance.randrange(8))
        if chance.random() < 0.3:
            late = max(minute - 97 * chance.randrange(1, 40), 0)
            found.append(record_of("north", late, chance.randrange(4), 0.0, "late", revision=1 + minute))
    return found


async def test_records_and_events_after_restarts_at_any_record_equal_those_of_an_undisturbed_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for chunk in ("_FIRST_CHUNK", "_LAST_CHUNK"):
        monkeypatch.setattr(readback, chunk, 10)
    found, chance = busy_days(), random.Random(3)
    rule = HALL.model_copy(update={"above": 4, "hysteresis": 1, "cooldown_s": 3600.0})
    steady, killed = Hall(rule), Hall(rule)
    for one in found:
        await steady.feed([one])
        await killed.feed([one])
        if chance.random() < 0.15:
            killed.kill()
    assert await killed.counts() == await steady.counts()
    assert await killed.events() == await steady.events()
    assert len(await steady.events()) > 3
    assert any(one.corrected for one in await steady.counts())


async def test_output_that_a_killed_worker_wrote_without_a_commit_is_not_written_again() -> None:
    hall = Hall()
    await hall.feed([*passing(0, 4, 0), *passing(1, 9, 0)])
    before = await hall.counts(), await hall.events()
    part = await hall.stage.open(TopicPartition(MEASURES, 0), 0, hall.log)
    records = [one async for one in hall.log.read(MEASURES, 0, 0, 4)]
    assert [out for one in records for work in part.process(one) for out in work.records] == []
    assert [len(one) for one in before] == [2, 1]


async def test_a_manual_count_changes_the_occupancy_in_a_running_and_in_a_restarted_worker() -> None:
    hall = Hall()
    await hall.feed([*passing(0, 4, 0), *passing(2, 1, 0)])
    at = datetime.fromtimestamp(MIDNIGHT_NS / 1e9 + 90, UTC)
    changed = HALL.model_copy(update={"counted_at": at, "counted": 2})
    hall.entries = (NORTH, SOUTH, changed)
    hall.stage.configure(Config({entry.key: entry for entry in hall.entries}))
    await hall.feed(passing(3, 1, 0))
    hall.kill()
    await hall.feed(passing(4, 1, 0))
    assert [one.values["inside"] for one in await hall.counts()] == [4.0, 5.0, 4.0, 5.0]


async def test_a_limit_that_is_lowered_below_the_present_count_is_reported_with_the_next_minute() -> None:
    hall = Hall()
    await hall.feed([*passing(0, 8, 0), *passing(1, 0, 0)])
    hall.entries = (NORTH, SOUTH, HALL.model_copy(update={"above": 5}))
    hall.stage.configure(Config({entry.key: entry for entry in hall.entries}))
    for minute in (2, 3):
        await hall.feed(passing(minute, 0, 0))
    (event,) = await hall.events()
    assert event.data.summary == "8 inside of hall, above 5"


async def test_a_change_of_a_lower_limit_that_was_not_reached_since_the_daily_reset_reports_nothing() -> None:
    hall = Hall(HALL.model_copy(update={"above": None, "below": 4, "hysteresis": 0}))
    await hall.feed([*passing(0, 2, 0), *passing(1, 0, 0)])
    hall.entries = (NORTH, SOUTH, HALL.model_copy(update={"above": None, "below": 5, "hysteresis": 0}))
    hall.stage.configure(Config({entry.key: entry for entry in hall.entries}))
    await hall.feed(passing(2, 0, 0))
    assert await hall.events() == []


async def test_output_of_a_worker_whose_clock_is_behind_is_not_written_again() -> None:
    hall = Hall()
    hall.clock.seconds = 600.0
    await hall.feed([])
    for one in [*passing(0, 4, 0), *passing(1, 9, 0)]:
        await hall.log.produce(Outgoing(MEASURES, 0, encode_json(one), key=b"door"))
    hall.clock.seconds = 570.0
    await hall.feed([])
    assert len(await hall.counts()) == 2
    part = await hall.stage.open(TopicPartition(MEASURES, 0), 0, hall.log)
    records = [one async for one in hall.log.read(MEASURES, 0, 0, 4)]
    assert [out for one in records for work in part.process(one) for out in work.records] == []


def test_the_minutes_in_memory_stay_bounded_after_the_camera_clock_was_far_ahead() -> None:
    config = Config({entry.key: entry for entry in (NORTH, SOUTH, HALL)})
    step = OccupancyStep(lambda: config, 1)
    step.step(record_of("north", 10**6, 1.0, 0.0), 0)
    for minute in range(0, 6 * 24 * 60, 10):
        step.step(record_of("north", minute, 1.0, 0.0), 0)
    assert len(step._past) <= KEPT_NS // (10 * MINUTE_NS) + 1


def test_the_minutes_of_a_line_are_not_mixed_with_an_occupancy_of_the_same_name() -> None:
    occupancy = record_of("north", 0, 1.0, 0.0).model_copy(update={"type": "occupancy", "parts": {}})
    book = MeasureBook([LogRecord(MEASURES, 0, 0, b"door", encode_json(occupancy))])
    tally = MinuteTally(sums={"person.forward": 3.0}, observed_s=60.0, closed_by=("1-1",))
    added = book.add(ClosedMinute("north", MIDNIGHT_NS, tally), "live", NORTH, "")
    assert added
    assert (added.revision, added.values) == (0, {"person.forward": 3.0})


SITE = """
name = "yard"
time_zone = "Europe/Berlin"
cameras = [{ name = "door", source = "simulated:walk" }, { name = "gate", source = "simulated:walk" }]
pipelines = [{ name = "people", model = "motion", width = 64, height = 64 }]
sensors = [
    { name = "heat", source = "simulated:temperature", quantity = "temperature", unit = "Cel", measure = true }]
[[rules]]
name = "inside"
type = "occupancy"
doors = { north = "forward", south = "forward" }
reset_at = 04:00:00
[[measures]]
name = "north"
type = "line"
camera = "door"
pipeline = "people"
start = [0.5, 1.0]
end = [0.5, 0.0]
[[measures]]
name = "south"
type = "line"
camera = "door"
pipeline = "people"
start = [0.2, 1.0]
end = [0.2, 0.0]
"""


def site_rule(folder: Path, text: str) -> OccupancyRule:
    file = folder / "site.toml"
    file.write_text(text)
    (rule,) = validated_site(load(file), file).rules
    assert isinstance(rule, OccupancyRule)
    return rule


def test_the_daily_reset_of_an_occupancy_is_in_the_time_zone_of_the_site(tmp_path: Path) -> None:
    assert site_rule(tmp_path, SITE).time_zone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("south = ", "west = ", "measure of the type line"),
        ('name = "inside"', 'name = "north"', "a name that no measure and no measured sensor has"),
        ('name = "inside"', 'name = "heat"', "a name that no measure and no measured sensor has"),
        ('"south"\ntype = "line"\ncamera = "door"', '"south"\ntype = "line"\ncamera = "gate"', "one camera"),
    ],
)
def test_an_occupancy_rule_with_an_invalid_door_or_a_name_already_in_use_is_refused(
    old: str, new: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=expected):
        site_rule(tmp_path, SITE.replace(old, new, 1))
