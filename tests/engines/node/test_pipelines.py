"""Tests of the models that a node serves: models change while the node runs, and a broken version changes nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry

from engines.backends.fake import FakeEngine
from engines.exceptions import ModelLoadFailed, ModelUnknown, PipelineUnknown
from engines.metrics import NodeMetrics
from engines.node.pipelines import REMOVED_S, RETRY_S, LiveModels
from engines.node.serving import RepositorySource
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.site import PipelineConfig
from tests.engines.node.fakesource import CARS, PEOPLE, FakeSource, configured, is_open
from tests.paths import MODELS


class LiveBench:
    """Live models of a fake source, with a clock that the test advances."""

    def __init__(self) -> None:
        self.source = FakeSource()
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        self.live = LiveModels(self.source, NodeMetrics(self.registry), lambda: self.now_s)

    async def configure(self, pipelines: Sequence[PipelineConfig]) -> None:
        await configured(self.live, pipelines)

    async def served(self, pipeline: str = "cars") -> str:
        async with self.live.use(pipeline) as model:
            return model.model.manifest.id

    async def settle(self) -> None:
        """Wait until models that are no longer used are closed."""
        while self.live._closing:
            await asyncio.sleep(0)


@pytest.fixture
def bench() -> LiveBench:
    return LiveBench()


async def test_a_promoted_model_version_is_served_after_a_refresh_and_the_old_version_is_closed(
    bench: LiveBench,
) -> None:
    await bench.configure([CARS])
    assert await bench.served() == "regions@1"
    bench.source.promoted = "regions@2"
    await bench.live.update()
    assert await bench.served() == "regions@2"
    await bench.settle()
    assert [is_open(engine) for engine in bench.source.engines] == [False, True]


async def test_an_unchanged_model_version_is_not_loaded_again(bench: LiveBench) -> None:
    await bench.configure([CARS])
    await bench.configure([CARS.model_copy(update={"max_items": 2, "sites": ("north",)})])
    await bench.live.update()
    assert len(bench.source.engines) == 1


@pytest.mark.parametrize("change", [{"min_score": 0.5}, {"precision": "bf16"}], ids=["min_score", "precision"])
async def test_a_model_is_loaded_again_after_its_settings_change(bench: LiveBench, change: dict[str, object]) -> None:
    await bench.configure([CARS])
    await bench.configure([CARS.model_copy(update=change)])
    assert len(bench.source.engines) == 2


async def test_a_broken_new_model_version_is_not_retried_immediately_and_the_present_version_serves(
    bench: LiveBench,
) -> None:
    await bench.configure([CARS])
    bench.source.promoted, bench.source.broken = "regions@2", {"regions@2"}
    with pytest.raises(ConfigError, match=r"regions@2 is broken"):
        await bench.live.update()
    for _ in range(3):
        await bench.live.update()
    assert await bench.served() == "regions@1"
    assert len(bench.source.engines) == 2
    assert bench.registry.get_sample_value("sightline_engine_refused_models") == 1
    bench.source.promoted = "regions@1"
    await bench.live.update()
    assert bench.registry.get_sample_value("sightline_engine_refused_models") == 0


async def test_other_pipelines_are_served_if_a_pipeline_has_no_model(bench: LiveBench) -> None:
    bench.source.missing = {"none"}
    with pytest.raises(ConfigError, match="no model none"):
        await bench.configure([CARS.model_copy(update={"name": "bad", "model": "none"}), PEOPLE])
    assert bench.live.names == {"people"}


async def test_a_refused_model_version_is_tried_again_after_the_retry_time(bench: LiveBench) -> None:
    bench.source.missing = {"regions"}
    with pytest.raises(ConfigError, match="no model regions"):
        await bench.configure([CARS])
    bench.source.missing = set()
    await bench.live.update()
    assert bench.live.names == {"cars"}
    bench.source.promoted, bench.source.broken = "regions@2", {"regions@2"}
    with pytest.raises(ConfigError, match="is broken"):
        await bench.live.update()
    bench.source.broken = set()
    await bench.live.update()
    assert await bench.served() == "regions@1"
    bench.now_s = RETRY_S
    await bench.live.update()
    assert await bench.served() == "regions@2"


@pytest.mark.parametrize("error", [PermissionError("promoted"), ValueError("priors"), MemoryError()])
async def test_any_error_while_a_model_loads_refuses_only_that_model(bench: LiveBench, error: Exception) -> None:
    class FailingSource(FakeSource):
        def version(self, pipeline: PipelineConfig) -> str:
            if pipeline.name == "cars":
                raise error
            return super().version(pipeline)

    live = LiveModels(FailingSource(), NodeMetrics(CollectorRegistry()), lambda: 0.0)
    with pytest.raises(ConfigError, match=type(error).__name__):
        await configured(live, [CARS, PEOPLE])
    assert live.names == {"people"}
    await configured(live, [PEOPLE])
    await live.close()


async def test_the_metric_of_refused_models_forgets_removed_pipelines(bench: LiveBench) -> None:
    bench.source.missing = {"regions"}
    with pytest.raises(ConfigError):
        await bench.configure([CARS])
    await bench.configure([])
    assert bench.registry.get_sample_value("sightline_engine_refused_models") == 0


async def test_a_pipeline_removed_while_its_broken_model_loads_does_not_count_as_refused(bench: LiveBench) -> None:
    bench.source.broken = {"regions@1"}
    bench.live.want([CARS])
    loading = asyncio.create_task(bench.live.update())
    await asyncio.sleep(0)
    bench.live.want([])
    with pytest.raises(ConfigError, match="is broken"):
        await loading
    assert bench.registry.get_sample_value("sightline_engine_refused_models") == 0


async def test_a_pipeline_is_loading_until_its_model_is_served_or_refused(bench: LiveBench) -> None:
    updates: list[frozenset[str]] = []
    bench.live.on_update = lambda: updates.append(bench.live.names)
    bench.source.missing = {"none"}
    bench.live.want([CARS, PEOPLE.model_copy(update={"model": "none"})])
    assert bench.live.names == {"cars", "people"}
    assert [bench.live.is_loading(name) for name in ("cars", "people", "other")] == [True, True, False]
    running = asyncio.create_task(bench.live.run(60.0))
    async with asyncio.timeout(60):
        while len(updates) < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    assert updates == [{"cars", "people"}, {"cars"}]
    assert not any(map(bench.live.is_loading, ("cars", "people")))


async def test_a_node_is_ready_once_a_model_is_served_or_if_no_pipeline_is_configured(bench: LiveBench) -> None:
    assert bench.live.unready_reason() == ""
    bench.live.want([CARS])
    assert bench.live.unready_reason() == "no model is loaded"
    await bench.live.update()
    assert bench.live.unready_reason() == ""


async def test_the_lighter_model_stays_loaded_beside_the_usual_model_until_the_overload_policy_changes(
    bench: LiveBench,
) -> None:
    light = CARS.model_copy(update={"overload": "lighter", "lighter": "regions@9"})
    await bench.configure([light])
    assert bench.live.names == {"cars"}
    assert bench.live.has_lighter("cars")
    async with bench.live.use("cars", lighter=True) as model:
        assert model.model.manifest.id == "regions@9"
    assert await bench.served() == "regions@1"
    await bench.configure([CARS])
    bench.now_s = REMOVED_S + 1
    await bench.live.update()
    await bench.settle()
    assert not bench.live.has_lighter("cars")
    assert [is_open(engine) for engine in bench.source.engines] == [True, False]


async def test_a_pipeline_whose_lighter_model_is_refused_keeps_its_usual_model(bench: LiveBench) -> None:
    bench.source.broken = {"regions@9"}
    with pytest.raises(ConfigError, match="regions@9 is broken"):
        await bench.configure([CARS.model_copy(update={"overload": "lighter", "lighter": "regions@9"})])
    assert not bench.live.has_lighter("cars")
    async with bench.live.use("cars", lighter=True) as model:
        assert model.model.manifest.id == "regions@1"


async def test_a_model_whose_pipeline_is_removed_while_it_loads_is_dropped_after_the_grace_time(
    bench: LiveBench,
) -> None:
    bench.live.want([CARS])
    loading = asyncio.create_task(bench.live.update())
    await asyncio.sleep(0)
    bench.live.want([])
    await loading
    assert bench.live.names == {"cars"}
    bench.now_s = REMOVED_S + 1
    await bench.live.update()
    assert bench.live.names == frozenset()


async def test_a_model_in_use_is_closed_only_after_its_last_batch(bench: LiveBench) -> None:
    await bench.configure([CARS])
    async with bench.live.use("cars") as model:
        bench.source.promoted = "regions@2"
        await bench.live.update()
        await bench.settle()
        assert is_open(bench.source.engines[0])
        assert model.model.manifest.id == "regions@1"
    await bench.settle()
    assert not is_open(bench.source.engines[0])


async def test_a_removed_pipeline_is_served_for_a_while_and_is_unknown_afterwards(bench: LiveBench) -> None:
    await bench.configure([CARS, PEOPLE])
    await bench.configure([PEOPLE])
    assert await bench.served("cars") == "regions@1"
    bench.now_s = REMOVED_S + 1
    await bench.live.update()
    assert bench.live.names == {"people"}
    assert bench.live.max_rows("cars") == 1
    with pytest.raises(PipelineUnknown, match="'cars' has no model"):
        await bench.served("cars")


async def test_a_pipeline_that_is_removed_and_added_again_keeps_its_model(bench: LiveBench) -> None:
    await bench.configure([CARS])
    await bench.configure([])
    await bench.configure([CARS])
    bench.now_s = 2 * REMOVED_S
    await bench.live.update()
    assert await bench.served() == "regions@1"
    assert len(bench.source.engines) == 1


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
def _warms_up_beside_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEngine, "WARMS_UP_BESIDE_WORK", True)


@pytest.mark.usefixtures("_warms_up_beside_work")
async def test_the_first_model_of_a_pipeline_classifies_before_its_warm_up_ends_but_a_later_model_does_not(
    bench: LiveBench,
) -> None:
    await bench.configure([CARS])
    assert [list(engine.warm_up_s) for engine in bench.source.engines] == [[1]]
    assert bench.live.max_rows("cars") == 1
    bench.source.promoted = "regions@2"
    await bench.live.update()
    assert len(bench.source.engines[1].warm_up_s) > 1


@pytest.mark.usefixtures("_warms_up_beside_work")
async def test_a_model_warms_up_for_larger_batches_after_a_pause_without_configuration_changes(
    bench: LiveBench,
) -> None:
    await bench.configure([CARS])
    running = asyncio.create_task(bench.live.run(0.001))
    await _until(lambda: len(bench.source.engines[0].warm_up_s) > 1)
    running.cancel()
    await asyncio.wait({running})
    assert await bench.served() == "regions@1"


@pytest.mark.usefixtures("_warms_up_beside_work")
async def test_a_model_whose_larger_batches_fail_keeps_serving_single_images(bench: LiveBench) -> None:
    await bench.configure([CARS])
    failed = threading.Event()

    def fail() -> None:
        failed.set()
        raise ModelLoadFailed("no memory")

    bench.source.on_image = fail
    running = asyncio.create_task(bench.live.run(0.001))
    await _until(failed.is_set)
    await _until(lambda: bench.live._serving["cars"].in_use == 0)
    running.cancel()
    await asyncio.wait({running})
    assert bench.live.max_rows("cars") == 1
    assert await bench.served() == "regions@1"


async def test_a_hundred_changes_of_the_model_version_leave_one_open_engine(bench: LiveBench) -> None:
    await bench.configure([CARS])
    bench.source.broken = {f"regions@{number}" for number in range(5, 100, 5)}
    for number in range(2, 102):
        bench.source.promoted = f"regions@{number}"
        if bench.source.promoted in bench.source.broken:
            with pytest.raises(ConfigError):
                await bench.live.update()
        else:
            await bench.live.update()
            assert await bench.served() == f"regions@{number}"
    await bench.settle()
    assert sum(map(is_open, bench.source.engines)) == 1
    await bench.live.close()
    assert not any(map(is_open, bench.source.engines))


def test_a_model_repository_resolves_names_with_and_without_a_version() -> None:
    source = RepositorySource(Repository(MODELS), lambda _: FakeEngine())
    assert source.version(CARS) == source.version(CARS.model_copy(update={"model": "regions@1"})) == "regions@1"
    assert source.make(CARS.model_copy(update={"model": "regions@1"})).model.manifest.id == "regions@1"
    for wrong, reason in (("regions@x", "NAME@VERSION"), ("other", "no model 'other'")):
        with pytest.raises(ModelUnknown, match=reason):
            source.version(CARS.model_copy(update={"model": wrong}))
