"""Tests of the models that a node serves: they change while the node runs, and a broken version changes nothing."""

from __future__ import annotations

import asyncio
import threading

import pytest
from prometheus_client import CollectorRegistry

from engines.backends.fake import FakeEngine
from engines.exceptions import EngineStateError, ModelLoadFailed, ModelUnknown, PipelineUnknown
from engines.metrics import NodeMetrics
from engines.node.pipelines import REMOVED_S, RETRY_S, LiveModels
from engines.node.serving import RepositorySource, ServedModel
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.exceptions import ConfigError
from ingest.site import PipelineConfig
from tests.paths import MODELS

CARS = PipelineConfig(name="cars", model="regions", width=64, height=64)
PEOPLE = CARS.model_copy(update={"name": "people"})


class FakeSource:
    """Source of the shipped model under any version. ``promoted`` is the version; those in ``broken`` do not load."""

    def __init__(self) -> None:
        self.promoted = "regions@1"
        self.broken: set[str] = set()
        self.missing: set[str] = set()
        self.engines: list[FakeEngine] = []

    def version(self, pipeline: PipelineConfig) -> str:
        if pipeline.model in self.missing:
            raise ModelUnknown(f"no model {pipeline.model}")
        return self.promoted

    def make(self, pipeline: PipelineConfig) -> ServedModel:
        version = self.promoted

        class VersionedEngine(FakeEngine):
            def _load_impl(engine, model: Model) -> None:  # noqa: N805
                if version in self.broken:
                    raise ModelLoadFailed(f"{version} is broken")
                super()._load_impl(model)

        self.engines.append(VersionedEngine())
        model = Repository(MODELS).open("regions")
        number = int(version.partition("@")[2])
        manifest = model.manifest.model_copy(update={"version": number})
        return ServedModel(pipeline, Model(manifest, model.folder), self.engines[-1])


def is_open(engine: FakeEngine) -> bool:
    try:
        return bool(engine.model)
    except EngineStateError:
        return False


class LiveBench:
    """Live models of a fake source, with a clock that the test moves."""

    def __init__(self) -> None:
        self.source = FakeSource()
        self.now_s = 0.0
        self.registry = CollectorRegistry()
        self.live = LiveModels(self.source, NodeMetrics(self.registry), lambda: self.now_s)

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


async def test_a_promoted_version_is_served_after_a_refresh_and_the_old_one_is_closed(bench: LiveBench) -> None:
    await bench.live.configure([CARS])
    assert await bench.served() == "regions@1"
    bench.source.promoted = "regions@2"
    await bench.live.refresh()
    assert await bench.served() == "regions@2"
    await bench.settle()
    assert [is_open(engine) for engine in bench.source.engines] == [False, True]


async def test_an_unchanged_version_is_not_loaded_again(bench: LiveBench) -> None:
    await bench.live.configure([CARS])
    await bench.live.configure([CARS.model_copy(update={"max_items": 2, "sites": ("north",)})])
    await bench.live.refresh()
    assert len(bench.source.engines) == 1


@pytest.mark.parametrize("change", [{"min_score": 0.5}, {"precision": "bf16"}], ids=["min_score", "precision"])
async def test_a_changed_setting_of_the_model_loads_it_again(bench: LiveBench, change: dict[str, object]) -> None:
    await bench.live.configure([CARS])
    await bench.live.configure([CARS.model_copy(update=change)])
    assert len(bench.source.engines) == 2


async def test_a_broken_version_leaves_the_present_one_in_service_and_is_not_tried_again_at_once(
    bench: LiveBench,
) -> None:
    await bench.live.configure([CARS])
    bench.source.promoted, bench.source.broken = "regions@2", {"regions@2"}
    with pytest.raises(ConfigError, match=r"regions@2 is broken"):
        await bench.live.refresh()
    for _ in range(3):
        await bench.live.refresh()
    assert await bench.served() == "regions@1"
    assert len(bench.source.engines) == 2
    assert bench.registry.get_sample_value("sightline_engine_refused_models") == 1
    bench.source.promoted = "regions@1"
    await bench.live.refresh()
    assert bench.registry.get_sample_value("sightline_engine_refused_models") == 0


async def test_a_pipeline_without_a_model_does_not_keep_others_from_being_served(bench: LiveBench) -> None:
    bench.source.missing = {"none"}
    with pytest.raises(ConfigError, match="no model none"):
        await bench.live.configure([CARS.model_copy(update={"name": "bad", "model": "none"}), PEOPLE])
    assert bench.live.names == {"people"}


async def test_a_refused_version_is_tried_again_after_a_while(bench: LiveBench) -> None:
    bench.source.missing = {"regions"}
    with pytest.raises(ConfigError, match="no model regions"):
        await bench.live.configure([CARS])
    bench.source.missing = set()
    await bench.live.refresh()
    assert bench.live.names == {"cars"}
    bench.source.promoted, bench.source.broken = "regions@2", {"regions@2"}
    with pytest.raises(ConfigError, match="is broken"):
        await bench.live.refresh()
    bench.source.broken = set()
    await bench.live.refresh()
    assert await bench.served() == "regions@1"
    bench.now_s = RETRY_S
    await bench.live.refresh()
    assert await bench.served() == "regions@2"


@pytest.mark.parametrize("error", [PermissionError("promoted"), ValueError("priors"), MemoryError()])
async def test_any_error_of_a_model_refuses_only_that_model(bench: LiveBench, error: Exception) -> None:
    class FailingSource(FakeSource):
        def version(self, pipeline: PipelineConfig) -> str:
            if pipeline.name == "cars":
                raise error
            return super().version(pipeline)

    live = LiveModels(FailingSource(), NodeMetrics(CollectorRegistry()), lambda: 0.0)
    with pytest.raises(ConfigError, match=type(error).__name__):
        await live.configure([CARS, PEOPLE])
    assert live.names == {"people"}
    await live.configure([PEOPLE])
    await live.close()


async def test_the_metric_of_refused_models_forgets_removed_pipelines(bench: LiveBench) -> None:
    bench.source.missing = {"regions"}
    with pytest.raises(ConfigError):
        await bench.live.configure([CARS])
    await bench.live.configure([])
    assert bench.registry.get_sample_value("sightline_engine_refused_models") == 0


async def test_a_model_in_use_is_closed_only_after_its_last_batch(bench: LiveBench) -> None:
    await bench.live.configure([CARS])
    async with bench.live.use("cars") as model:
        bench.source.promoted = "regions@2"
        await bench.live.refresh()
        await bench.settle()
        assert is_open(bench.source.engines[0])
        assert model.model.manifest.id == "regions@1"
    await bench.settle()
    assert not is_open(bench.source.engines[0])


async def test_a_removed_pipeline_is_served_for_a_while_and_then_unknown(bench: LiveBench) -> None:
    await bench.live.configure([CARS, PEOPLE])
    await bench.live.configure([PEOPLE])
    assert await bench.served("cars") == "regions@1"
    bench.now_s = REMOVED_S + 1
    await bench.live.refresh()
    assert bench.live.names == {"people"}
    assert bench.live.max_rows("cars") == 1
    with pytest.raises(PipelineUnknown, match="'cars' was removed"):
        await bench.served("cars")


async def test_a_pipeline_that_is_added_again_stays(bench: LiveBench) -> None:
    await bench.live.configure([CARS])
    await bench.live.configure([])
    await bench.live.configure([CARS])
    bench.now_s = 2 * REMOVED_S
    await bench.live.refresh()
    assert await bench.served() == "regions@1"
    assert len(bench.source.engines) == 1


async def test_a_hundred_changes_of_version_leave_one_engine_and_one_worker_thread(bench: LiveBench) -> None:
    others = set(threading.enumerate())
    await bench.live.configure([CARS])
    bench.source.broken = {f"regions@{number}" for number in range(5, 100, 5)}
    for number in range(2, 102):
        bench.source.promoted = f"regions@{number}"
        if bench.source.promoted in bench.source.broken:
            with pytest.raises(ConfigError):
                await bench.live.refresh()
        else:
            await bench.live.refresh()
            assert await bench.served() == f"regions@{number}"
    await bench.settle()
    assert sum(map(is_open, bench.source.engines)) == 1
    assert sum(thread.name.startswith("infer") for thread in set(threading.enumerate()) - others) == 1
    await bench.live.close()
    assert not any(map(is_open, bench.source.engines))


def test_a_repository_resolves_names_with_and_without_a_version() -> None:
    source = RepositorySource(Repository(MODELS), lambda _: FakeEngine())
    assert source.version(CARS) == source.version(CARS.model_copy(update={"model": "regions@1"})) == "regions@1"
    assert source.make(CARS.model_copy(update={"model": "regions@1"})).model.manifest.id == "regions@1"
    for wrong, reason in (("regions@x", "NAME@VERSION"), ("other", "no model 'other'")):
        with pytest.raises(ModelUnknown, match=reason):
            source.version(CARS.model_copy(update={"model": wrong}))
