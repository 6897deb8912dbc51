"""Tests of restarts while an object stands for longer than the results that are read back cover.

Such an object must make one event.
"""

from __future__ import annotations

import pytest

from ingest.contract import headers as h
from ingest.contract.codec import decode_json, encode
from ingest.contract.identity import LATE, LIVE
from ingest.contract.records import Box, Detection, Event, Measure, Result
from ingest.contract.topics import EVENTS, MEASURES, RESULTS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import CameraConfig, MeasureConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream import readback
from stream.analyse.rule import CameraRule
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.zone import ZoneRule
from stream.analyse.stage import AnalyseStage
from tests.stream.analyse.owners import outputs
from tests.stream.analyse.results import result_at

CAMERA = CameraConfig(name="c", source="simulated:road")
PIPELINE = PipelineConfig(name="p", model="m", width=64, height=64)
RIGHT = ZoneRule(name="right", camera="c", pipeline="p", polygon=((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)))
LINE = LineRule(name="line", camera="c", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0))
MEASURE = MeasureConfig(name="passes", type="line", camera="c", pipeline="p", start=(0.5, 1.0), end=(0.5, 0.0))
FPS = 2


def car(x: float, y: float = 180.0) -> Detection:
    return Detection(box=Box(x - 60.0, y - 20.0, x + 60.0, y + 20.0), label="car", class_id=1, score=0.9)


def result(seq: int, *found: Detection, lane: str = LIVE, epoch: int = 1) -> Result:
    return result_at(seq, seq / FPS, *found, lane=lane, epoch=epoch)


class Site:
    """A partition of results that are written at their capture times, and a stage that reads the partition."""

    def __init__(self, *rules: CameraRule | MeasureConfig) -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(partitions=1, clock=self.clock)
        self.stage = AnalyseStage(Config({entry.key: entry for entry in (CAMERA, PIPELINE, *rules)}), 1)
        self.measures: list[Measure] = []

    async def write(self, *results: Result) -> None:
        for one in results:
            if one.lane == LIVE:
                self.clock.seconds = (one.captured_ns - 10**18) / 1e9
            await self.log.produce(Outgoing(RESULTS, 0, encode(one), headers=h.frame_headers([one.id], one.lane)))

    async def events(self, start: int, stop: int, *, write: bool = False) -> list[Event]:
        """Process the results from second ``start`` to second ``stop`` as the owner of the partition, and return the
        events."""
        found = []
        async for _, out in outputs(self.stage, self.log, start * FPS, stop * FPS):
            if write:
                await self.log.produce(out)
            if out.topic == MEASURES:
                self.measures.append(decode_json(Measure, out.value))
                continue
            assert out.topic == EVENTS
            found.append(decode_json(Event, out.value))
        return found


def stand(seconds: int, x: float = 480.0, first: int = 0) -> list[Result]:
    return [result(first * FPS + n, car(x)) for n in range(seconds * FPS)]


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read back in small steps, because one large step would read the whole of a short log."""
    monkeypatch.setattr(readback, "_FIRST_CHUNK", 10)
    monkeypatch.setattr(readback, "_LAST_CHUNK", 10)


def before(whole: list[Event], cut: int) -> list[str]:
    """Return the ids of the events that a process wrote before it was killed at second ``cut``."""
    return [event.id for event in whole if event.data.seq < cut * FPS]


async def test_a_restart_at_any_time_during_a_long_dwell_reports_the_visit_once() -> None:
    site = Site(RIGHT.model_copy(update={"dwell_s": 300.0}))
    await site.write(*stand(350))
    whole = await site.events(0, 350)
    assert len(whole) == 1
    for cut in (100, 290, 320):
        after = await site.events(cut, 350)
        assert before(whole, cut) + [event.id for event in after] == [whole[0].id]


async def test_the_long_cooldown_of_a_rule_continues_after_a_restart() -> None:
    """The car is in the zone from 0.5 s to 10 s and again from 20 s on.

    The car is reported again when the cooldown ends, at 300.5 s.
    """
    site = Site(RIGHT.model_copy(update={"cooldown_s": 300.0}))
    away = [result(20 + n, car(480.0 - 40 * min(n, 9))) for n in range(20)]
    back = [result(40 + n, car(120.0 + 40 * min(n, 9))) for n in range(700)]
    await site.write(*stand(10), *away, *back)
    whole = await site.events(0, 350)
    assert [event.data.seq for event in whole] == [1, 601]
    for cut in (30, 200, 290):
        after = await site.events(cut, 350)
        assert before(whole, cut) + [event.id for event in after] == [event.id for event in whole]


@pytest.mark.parametrize("rule", [RIGHT, RIGHT.model_copy(update={"dwell_s": 100.0})])
async def test_a_zone_visit_whose_event_is_older_than_the_results_read_at_a_restart_is_not_reported_again(
    rule: ZoneRule,
) -> None:
    site = Site(rule)
    await site.write(*stand(900))
    whole = await site.events(0, 800)
    assert len(before(whole, 300)) == len(whole) == 1
    for cut, until in ((300, 900), (500, 640), (800, 900)):
        assert await site.events(cut, until) == []


async def test_an_event_written_after_the_last_commit_is_not_repeated_for_a_track_renamed_at_a_restart() -> None:
    """A car that stands for 800 s crosses the line; then the process is killed, 20 s after its last commit."""
    site = Site(LINE)
    crossing = [result(1600 + n, car(160.0 + 40 * min(n, 9))) for n in range(40)]
    await site.write(*stand(800, x=160.0), *crossing)
    (event,) = await site.events(0, 820, write=True)
    assert event.data.track == "1-1-0"
    assert await site.events(800, 820) == []


@pytest.mark.parametrize("others", [0, 4])
async def test_events_that_were_written_before_the_first_commit_of_their_camera_are_not_repeated(others: int) -> None:
    """The process is killed before it has committed any result of the camera. Before, it may have committed results
    of another camera."""
    site = Site(RIGHT, MEASURE)
    await site.write(*[result(n, car(480.0)).model_copy(update={"camera": "other"}) for n in range(others)])
    await site.write(*[result(n, car(480.0)) for n in range(80 * FPS)])
    start_s = others // FPS
    (event,) = await site.events(start_s, start_s + 70, write=True)
    assert event.data.seq == 1
    assert await site.events(start_s, start_s + 70) == []
    assert len(site.measures) == 1


async def test_a_track_that_is_older_than_the_results_read_at_a_restart_has_another_name_in_later_events() -> None:
    site = Site(LINE)
    crossing = [result(1600 + n, car(160.0 + 40 * min(n, 9))) for n in range(40)]
    await site.write(*stand(800, x=160.0), *crossing)
    (event,) = await site.events(790, 820)
    assert event.data.track != "1-1-0"


async def test_the_cooldown_of_a_track_is_restored_from_written_events_at_a_restart() -> None:
    """The car enters and leaves all the time, so the results alone do not show the time of its last event."""
    site = Site(RIGHT.model_copy(update={"cooldown_s": 25.0}))
    to_and_fro = [300.0, 260.0, 220.0, 180.0, 220.0, 260.0, 300.0, 340.0, 380.0, 340.0]
    await site.write(*[result(n, car(to_and_fro[n % 10])) for n in range(720 * FPS)])
    whole = await site.events(0, 720, write=True)
    assert len(whole) > 20
    for cut in range(600, 630, 7):
        for back in (0, 20):
            again = [event.data.seq for event in await site.events(cut - back, cut + 40)]
            assert again == []  # all events are already written


@pytest.mark.parametrize("cut", range(379, 384))
async def test_two_tracks_in_the_first_result_that_a_restart_reads_get_different_names(cut: int) -> None:
    """The old track seems to begin where the readback begins, possibly in the frame that confirmed the other
    track."""
    site = Site(LINE)
    comes, way = 521, [120.0 + 40 * min(n, 9) for n in range(2000)]
    old, new = car(160.0, 80.0), [car(x, 280.0) for x in way]
    await site.write(*[result(n, old, *([new[n - comes]] if n >= comes else [])) for n in range(cut * FPS)])
    await site.write(*[result(cut * FPS + n, car(way[n], 80.0)) for n in range(20)])
    (first,) = await site.events(0, cut)
    (second,) = await site.events(cut, cut + 10)
    assert first.data.incident != second.data.incident


async def test_thousands_of_late_results_do_not_shorten_the_history_of_live_results_read_at_a_restart() -> None:
    site = Site(RIGHT.model_copy(update={"dwell_s": 60.0}))
    live = stand(70)
    burst = [result(n, car(100.0), lane=LATE, epoch=0) for n in range(21_000)]
    await site.write(*live[: 50 * FPS], *burst, *live[50 * FPS :])
    start = 50 * FPS + 21_000
    found = [out async for _, out in outputs(site.stage, site.log, start, start + 20 * FPS)]
    (event,) = [decode_json(Event, out.value) for out in found]
    assert event.data.seq == 121
