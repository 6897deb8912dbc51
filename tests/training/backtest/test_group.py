"""Tests of backtests that several members share, on the log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from ingest.contract.topics import BACKTESTS, FRAMES, FRAMES_LATE, TOPICS
from ingest.kafka.log import TopicPartition
from stream.explain.comparison import RuleDifference
from tests.paths import MODELS
from tests.training.backtest.livesite import PARTITIONS, LiveSite, candidate
from tests.training.backtest.test_run import live, run
from training.backtest.figures import BacktestFigures
from training.backtest.group import BacktestMember, PartitionFigures, as_json, group_of
from training.backtest.verdict import summary

ALL = [TopicPartition(topic, p) for topic in (FRAMES, FRAMES_LATE) for p in range(PARTITIONS)]
ONLY = ["south"]
"""A camera with frames in both lanes, which are two topic partitions."""
MEASURED = ("stages_ms", "frame_ms", "cpu_ms_per_frame", "cpu_s", "wall_s", "speed", "members")


class FixedShare:
    """A share of the partitions that changes when a test says so."""

    def __init__(self, assigned: Collection[TopicPartition]) -> None:
        self.assigned = assigned
        self.reading: TopicPartition | None = None
        self.change = asyncio.Event()

    async def changed(self, timeout_s: float) -> None:
        try:
            await asyncio.wait_for(self.change.wait(), min(timeout_s, 0.1))
        except TimeoutError:
            return
        self.change.clear()


def counted(figures: BacktestFigures) -> dict[str, object]:
    """Return the figures without measured times."""
    return {name: value for name, value in summary(figures).items() if name not in MEASURED}


async def members(site: LiveSite, shares: list[FixedShare], name: str) -> list[BacktestFigures]:
    plan = site.plan(MODELS, cameras=ONLY)
    models = candidate(plan, MODELS)
    try:
        every = [BacktestMember(site.log, plan, models, name, f"m{n}") for n in range(len(shares))]
        return await asyncio.gather(*(each.run(share) for each, share in zip(every, shares, strict=True)))
    finally:
        models.close()


async def test_two_processes_share_a_backtest_and_get_the_figures_of_a_single_process() -> None:
    site = await live()
    before = {topic: await site.log.ends(topic) for topic in TOPICS if topic != BACKTESTS}
    one, two = await members(site, [FixedShare(ALL[:2]), FixedShare(ALL[2:])], "both")
    assert counted(one) == counted(two) == counted(await run(site, site.plan(MODELS, cameras=ONLY)))
    assert one.members == 2
    assert {topic: await site.log.ends(topic) for topic in before} == before


async def test_a_backtest_partition_that_changes_its_process_is_counted_once() -> None:
    site = await live()
    first, second = FixedShare(ALL), FixedShare(())

    async def move() -> None:
        await asyncio.sleep(0)  # the first process has begun
        first.assigned, second.assigned = (), ALL
        for share in (first, second):
            share.change.set()

    (one, two), _ = await asyncio.gather(members(site, [first, second], "moved"), move())
    (late,) = await members(site, [FixedShare(())], "moved")  # joins after the end, and has no work
    alone = await run(site, site.plan(MODELS, cameras=ONLY))
    assert counted(one) == counted(two) == counted(late) == counted(alone)


async def test_backtest_figures_too_large_for_a_record_are_written_without_their_events(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events = (await live()).events
    difference = RuleDifference(gained=len(events), gained_events=events)
    part = PartitionFigures(
        plan="x", member="m", topic=FRAMES, partition=0, figures=BacktestFigures(rules={"line": difference})
    )
    assert len(PartitionFigures.model_validate_json(as_json(part)).figures.rules["line"].gained_events) == len(events)
    monkeypatch.setattr("training.backtest.group.MAX_RECORD_BYTES", 2000)
    written = as_json(part)
    found = PartitionFigures.model_validate_json(written).figures.rules["line"]
    assert (found.gained, found.gained_events, len(written) <= 2000) == (len(events), [], True)


async def test_backtest_processes_with_different_plans_are_in_different_groups() -> None:
    site = await live()
    assert group_of("x", site.plan(MODELS, cameras=ONLY)) != group_of("x", site.plan(MODELS, end_s=5.0))
