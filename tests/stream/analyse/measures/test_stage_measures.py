"""Tests of the measures that the stage ``analyse`` writes, with late frames and restarts."""

from __future__ import annotations

from itertools import pairwise

import pytest

from edge_agent.sources.simulated import COUNTING_LINES, SceneConfig
from edge_agent.sources.simulated.actors import crossings_between
from ingest.contract.codec import decode_json
from ingest.contract.identity import LATE
from ingest.contract.records import Measure, Result
from ingest.contract.topics import MEASURES
from ingest.kafka.memorylog import MemoryLog
from ingest.site import MeasureConfig
from ingest.site.topic.view import Config
from stream.analyse.stage import AnalyseStage
from tests.stream.analyse.owners import log_of, outputs
from tests.stream.analyse.test_stage import CAMERA, PIPELINE, results

COMMON = {"camera": "road", "pipeline": "regions"}
START, END = COUNTING_LINES["road"]
ENTRIES = (
    CAMERA,
    PIPELINE,
    MeasureConfig(name="flow", type="line", start=START, end=END, **COMMON),
    MeasureConfig(name="half", type="zone", polygon=((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)), **COMMON),
)
CONFIG = Config({entry.key: entry for entry in ENTRIES})
FPS = 5.0


async def write(log: MemoryLog, start: int, stop: int) -> None:
    """Process the results from ``start`` to ``stop`` as a new owner of the partition, and write its records."""
    async for _, out in outputs(AnalyseStage(CONFIG, 1), log, start, stop):
        await log.produce(out)


async def written(log: MemoryLog) -> list[Measure]:
    end = (await log.ends(MEASURES))[0]
    return [decode_json(Measure, record.value) async for record in log.read(MEASURES, 0, 0, end)]


async def test_counts_of_the_simulated_road_are_the_true_crossings() -> None:
    found = results(FPS, 190)
    log = await log_of(found)
    await write(log, 0, len(found))
    minutes = [one for one in await written(log) if one.name == "flow"]
    assert len(minutes) == 3  # the epoch begins 40 s after a full minute
    counted = sum(count for one in minutes for name, count in one.values.items() if name.endswith("ward"))
    last_s = (minutes[-1].start_ns + 60 * 10**9 - 10**18) / 1e9
    truth = crossings_between(SceneConfig("road", seed=1, fps=FPS), 0.0, last_s)
    assert abs(counted - len(truth)) <= 2
    assert minutes[1].observed == pytest.approx(1.0, abs=0.01)


def with_late_part(found: list[Result], first: int, stop: int) -> list[Result]:
    """Return the results, of which those from ``first`` to ``stop`` arrive on the late lane after all others."""
    late = [one.model_copy(update={"lane": LATE}) for one in found[first:stop]]
    return [*found[:first], *found[stop:], *late]


async def test_late_frames_correct_the_minutes_of_an_outage() -> None:
    found = results(FPS, 200)
    log = await log_of(with_late_part(found, 300, 700))
    await write(log, 0, len(found))
    flow = [one for one in await written(log) if one.name == "flow"]
    corrected = [one for one in flow if one.corrected]
    assert corrected
    for one in corrected:
        before = next(old for old in flow if (old.start_ns, old.revision) == (one.start_ns, one.revision - 1))
        assert one.observed > before.observed


@pytest.mark.parametrize("stops", [(250,), (333, 334), (100, 480, 810)])
async def test_measures_after_restarts_equal_those_of_an_undisturbed_run(stops: tuple[int, ...]) -> None:
    """Each owner is killed after it has written a hundred results more than it has committed."""
    found = with_late_part(results(FPS, 200), 300, 700)
    undisturbed, killed = await log_of(found), await log_of(found)
    await write(undisturbed, 0, len(found))
    for start, stop in pairwise([0, *stops, len(found)]):
        await write(killed, max(start - 100, 0), stop)
    assert {one.id: one for one in await written(killed)} == {one.id: one for one in await written(undisturbed)}
    assert len(await written(killed)) == len(await written(undisturbed))
