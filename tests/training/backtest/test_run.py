"""Tests of backtests on the log in memory: a backtest of the live model gives the events of the live pipeline."""

from __future__ import annotations

import asyncio
import threading
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from engines.exceptions import PromotionRefused
from engines.repository.backtests import add_record, require_passed
from engines.repository.store import Repository
from ingest.contract.records import Attribute, Box, Detection, Event, FrameRef, Result
from ingest.contract.topics import TOPICS
from ingest.exceptions import ConfigError
from ingest.site import CameraConfig, SecondModelConfig
from ingest.site.lens import LensConfig
from ingest.site.topic.view import Config
from stream.analyse.rules.line import LineRule
from stream.analyse.rules.security.behaviour import BehaviourRule
from stream.explain.comparison import EventComparison, rules_json
from stream.prepare.stage import PrepareStage
from tests.paths import MODELS
from tests.training.backtest.livesite import BEGIN_NS, PIPELINE, LiveSite, candidate, frames, live_site, site
from training.backtest.core import PreparedFrames, ReplayCore, Replayed, note
from training.backtest.figures import BacktestFigures
from training.backtest.page import page
from training.backtest.plan import BacktestPlan
from training.backtest.run import backtest
from training.backtest.verdict import Thresholds, record_of

RECORDS = cache(frames)
LIMITS = Thresholds(min_frames=50)


_SITES: list[LiveSite] = []


async def live() -> LiveSite:
    """Return the site after a live run in which an overloaded node has shed some frames. All tests share it."""
    if not _SITES:
        _SITES.append(await live_site(MODELS, RECORDS(), shed=True))
    return _SITES[0]


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """Return the list to which backtests append the events of their rules."""
    found: list[Event] = []
    add = EventComparison.add

    def noted(self: EventComparison, event: Event) -> None:
        found.append(event)
        add(self, event)

    monkeypatch.setattr(EventComparison, "add", noted)
    return found


async def run(site: LiveSite, plan: BacktestPlan, models: Path = MODELS) -> BacktestFigures:
    opened = candidate(plan, models)
    try:
        return await backtest(site.log, plan, opened)
    finally:
        opened.close()


def result(seq: int, camera: str = "yard", **changes: Any) -> Result:
    """Return a live result of the pipeline ``p``."""
    fields = {
        "camera": camera,
        "epoch": 1,
        "seq": seq,
        "lane": "live",
        "captured_ns": 1,
        "width": 64,
        "height": 64,
        "source": FrameRef("frames", 0, 0),
        "pipeline": "p",
        "pipelines": ("p",),
        "finished_ns": 1,
        "outcome": "classified",
        "model": "regions@1",
    }
    return Result(**{**fields, **changes})


def texts(events: list[Event]) -> list[str]:
    return sorted(event.model_dump_json() for event in events)


def counts(figures: BacktestFigures) -> dict[str, tuple[int, int, int, int]]:
    return {name: (one.equal, one.moved, one.gained, one.lost) for name, one in figures.rules.items()}


def damaged(models: Path) -> str:
    """Add a version of the shipped model whose head never chooses cars, and return its id."""
    repository = Repository(models)
    good = Repository(MODELS).open("regions@1")
    manifest = good.manifest.model_dump(exclude={"name", "version", "sha256"}, exclude_none=True)
    repository.write("regions", manifest, {"model.onnx": good.path.read_bytes()})
    network = onnx.load(good.path)
    (bias,) = [one for one in network.graph.initializer if one.name in network.graph.node[-2].input]
    values = numpy_helper.to_array(bias).copy()
    values[good.manifest.labels.index("car")] = -100.0
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    return repository.write("regions", manifest, {"model.onnx": network.SerializeToString()}).manifest.id


async def test_a_backtest_of_the_live_model_and_rules_gives_exactly_the_live_events(emitted: list[Event]) -> None:
    site = await live()
    before = {topic: await site.log.ends(topic) for topic in TOPICS}
    figures = await run(site, site.plan(MODELS))
    assert {topic: await site.log.ends(topic) for topic in TOPICS} == before  # nothing is written
    assert texts(emitted) == texts(site.events)
    assert {one.data.camera for one in emitted} == {"north", "south", "yard"}
    assert {one.data.lane for one in emitted} == {"live", "late"}
    assert all(difference[1:] == (0, 0, 0) for difference in counts(figures).values())
    assert figures.agreement == 1.0
    assert figures.shed_live > 0
    assert LIMITS.reasons(figures) == []


async def test_a_backtest_of_a_part_of_the_period_compares_the_events_of_this_part(emitted: list[Event]) -> None:
    site = await live()
    figures = await run(site, site.plan(MODELS, first_s=5.0, end_s=9.0))
    inside = [one for one in emitted if one.id in {each.id for each in site.events}]
    assert 0 < len(emitted) == len(inside) < len(site.events)
    assert all(difference[1:] == (0, 0, 0) for difference in counts(figures).values())


async def test_a_backtest_of_one_camera_and_of_changed_rules_reports_only_their_events() -> None:
    site = await live()
    plan = site.plan(MODELS, cameras=["yard"])
    (line,) = [one for one in plan.rules if isinstance(one, LineRule)]
    moved = line.model_copy(update={"name": "other"})
    rules = tuple(moved if one is line else one for one in plan.rules)
    figures = await run(site, BacktestPlan(**{**vars(plan), "rules": rules}))
    found = counts(figures)
    assert found.keys() == {"other", "yard-line", "restricted"}
    assert found["other"][2] == found["yard-line"][3] > 0


async def test_promotion_requires_a_passed_backtest_which_a_worse_model_fails_and_a_better_model_passes(
    tmp_path: Path, emitted: list[Event]
) -> None:
    bad, repository, site = damaged(tmp_path), Repository(tmp_path), await live()
    repository.promote("regions", 1)
    with pytest.raises(PromotionRefused, match="regions@2 has no backtest"):
        require_passed(repository, "regions", 2)
    plan = site.plan(tmp_path, bad)
    figures = await run(site, plan, tmp_path)
    record = record_of(plan, figures, LIMITS, BEGIN_NS)
    add_record(repository, record)
    assert figures.labels["car"].found == 0
    assert any("of the live events were lost" in reason for reason in record.reasons)
    with pytest.raises(PromotionRefused, match=r"did not pass: .* lost"):
        require_passed(repository, "regions", 2)
    html = page(record, rules_json(figures.rules), {})
    assert "of the live events were lost" in html

    worse_live = await live_site(tmp_path, RECORDS()[:75], bad)
    repository.promote("regions", 2)
    better = worse_live.plan(tmp_path, "regions@1")
    with pytest.raises(PromotionRefused, match="regions@1 has no backtest"):
        require_passed(repository, "regions", 1)
    emitted.clear()
    gained = await run(worse_live, better, tmp_path)
    rerun = await live_site(tmp_path, RECORDS()[:75], "regions@1")
    assert texts(emitted) == texts(rerun.events)
    before, after = ({one.id for one in site.events} for site in (worse_live, rerun))
    assert sum(one.gained for one in gained.rules.values()) == len(after - before) > 0
    stated = Thresholds(max_lost=0.3, max_gained=9.0, min_agreement=0.5, min_frames=20)
    add_record(repository, record_of(better, gained, stated, BEGIN_NS))
    assert gained.gained_share > gained.lost_share
    assert require_passed(repository, "regions", 1).served.keys() == {"regions@2"}


def test_promotion_refuses_a_backtest_against_a_version_that_is_no_longer_served(tmp_path: Path) -> None:
    damaged(tmp_path)
    repository = Repository(tmp_path)
    repository.promote("regions", 1)
    manifest = repository.open("regions@2").manifest
    plan = BacktestPlan(manifest.id, manifest.sha256, (), (), (), (), frozenset(), 0, 1)
    passing = BacktestFigures(frames=200, compared=200, served={"regions@9": 200})
    add_record(repository, record_of(plan, passing, LIMITS, BEGIN_NS))
    with pytest.raises(PromotionRefused, match="compares it with regions@9, but regions@1 is served now"):
        require_passed(repository, "regions", 2)


@pytest.mark.parametrize(
    ("names", "problem"),
    [({"cameras": ["attic"]}, "--camera"), ({"pipelines": ["attic"]}, "--pipeline")],
)
async def test_an_unknown_camera_or_pipeline_is_refused(names: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        (await live()).plan(MODELS, **names)


async def test_a_model_that_no_pipeline_uses_is_refused() -> None:
    site = await live()
    manifest = Repository(MODELS).open("regions").manifest.model_copy(update={"name": "other"})
    with pytest.raises(ConfigError, match=r"Pipelines: p \(regions\)"):
        BacktestPlan.of(site.config, manifest, (0, 1))
    assert BacktestPlan.of(site.config, manifest, (0, 1), pipelines=["p"]).pipelines[0].model == "other@1"


def test_a_backtest_corrects_the_lens_distortion_of_the_tested_cameras() -> None:
    lens = LensConfig(width=320, height=180, fx=200, fy=200, cx=160, cy=90, distortion=(-0.2, 0.03, 0.0, 0.0))
    yard = CameraConfig(name="yard", source="simulated:yard", lens=lens)
    config = Config({**site().entries, yard.key: yard})
    manifest = Repository(MODELS).open("regions").manifest
    plan = BacktestPlan.of(config, manifest, (BEGIN_NS // 10**6, BEGIN_NS // 10**6 + 5000), cameras=["yard"])
    assert PrepareStage("live", plan.site).lenses == {"yard": lens}


async def test_a_candidate_model_replaces_the_second_models_of_its_name() -> None:
    site = await live()
    second = SecondModelConfig(name="type", model="regions", min_pixels=1)
    config = Config({**site.config.entries, "pipeline/p": PIPELINE.model_copy(update={"then": (second,)})})
    manifest = Repository(MODELS).open("regions").manifest
    plan = BacktestPlan.of(config, manifest, (BEGIN_NS // 10**6, BEGIN_NS // 10**6 + 5000), cameras=["yard"])
    assert [(one.model, one.then[0].model) for one in plan.pipelines] == [("regions@1", "regions@1")]
    figures = await run(site, plan)
    assert figures.classified > 0
    assert figures.stages["cascade"].total_s > 0.0
    assert figures.failed == 0


def test_a_passed_backtest_of_a_second_model_permits_its_promotion(tmp_path: Path) -> None:
    damaged(tmp_path)
    repository, figures = Repository(tmp_path), BacktestFigures(frames=200)
    repository.promote("regions", 1)
    kind = Attribute(name="type", model="regions@1", missing="small")
    found = Detection(box=Box(0.0, 0.0, 9.0, 9.0), label="car", class_id=0, score=0.9, attributes=(kind,))
    live_result = result(seq=1, model="boxes@1", detections=(found,))
    for _ in range(100):
        note(figures, Replayed(live_result, [], live_result))
    assert figures.served == {"boxes@1": 100, "regions@1": 100}
    manifest = repository.open("regions@2").manifest
    plan = BacktestPlan(manifest.id, manifest.sha256, (), (), (), (), frozenset(), 0, 1)
    add_record(repository, record_of(plan, figures, LIMITS, BEGIN_NS))
    assert require_passed(repository, "regions", 2).passed


async def test_a_backtest_with_a_rule_whose_model_is_not_stored_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SIGHTLINE_MODELS", str(tmp_path))
    site = await live()
    rule = BehaviourRule(name="falls", camera="yard", pipeline="p", behaviour="fallen", model="none@1")
    plan = BacktestPlan(**{**vars(site.plan(MODELS, cameras=["yard"])), "rules": (rule,)})
    with pytest.raises(ConfigError, match="none@1"):
        await run(site, plan)


async def test_a_cancelled_backtest_ends_only_after_its_thread_has_released_the_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site, begun, may_end, ended = await live(), threading.Event(), threading.Event(), threading.Event()

    def replay(*_: object) -> list[Replayed]:
        begun.set()
        assert may_end.wait(60)
        ended.set()
        return []

    monkeypatch.setattr(ReplayCore, "prepare", lambda _, records: PreparedFrames(records))
    monkeypatch.setattr(ReplayCore, "replay", replay)
    task = asyncio.create_task(run(site, site.plan(MODELS)))
    assert await asyncio.to_thread(begun.wait, 60)
    task.cancel()
    await asyncio.wait({task}, timeout=0.2)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
