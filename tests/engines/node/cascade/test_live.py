"""Tests of second-stage models in a running node: how they are loaded, replaced and removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from aiokafka import TopicPartition as KafkaPartition
from prometheus_client import CollectorRegistry

from engines.backends.fake import FakeEngine
from engines.exceptions import ModelLoadFailed
from engines.metrics import NodeMetrics
from engines.node.cascade import NO_FRAME, NO_MODEL
from engines.node.node import Node
from engines.node.pipelines import LiveModels
from engines.node.serving import SecondModel, ServedModel
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.contract.codec import decode
from ingest.contract.records import Attribute, Result
from ingest.contract.topics import RESULTS
from ingest.exceptions import ConfigError
from ingest.kafka.memorylog import MemoryLog
from ingest.site import PipelineConfig, SecondModelConfig
from tests.engines.node.cascade.bench import BUS, CAR, TYPE, found, jpeg, merged, with_frames
from tests.engines.node.fakesource import FakeIntake, FakeSource, configured, running, until_written
from tests.paths import MODELS


class SecondSource(FakeSource):
    """A source that also makes second models under the version ``second``; ``broken_second`` refuses to load."""

    def __init__(self) -> None:
        super().__init__()
        self.second = "regions@1"
        self.broken_second = False
        self.made: list[FakeEngine] = []

    def version(self, wanted: PipelineConfig | SecondModelConfig) -> str:
        return self.second if isinstance(wanted, SecondModelConfig) else super().version(wanted)

    def make(self, wanted: PipelineConfig | SecondModelConfig) -> ServedModel | SecondModel:
        if isinstance(wanted, PipelineConfig):
            return super().make(wanted)
        if self.broken_second:
            raise ModelLoadFailed(f"{self.second} is broken")
        model = Repository(MODELS).open("regions")
        number = int(self.second.partition("@")[2])
        self.made.append(FakeEngine())
        manifest = model.manifest.model_copy(update={"version": number})
        return SecondModel(wanted, Model(manifest, model.folder), self.made[-1])


PIPELINE = PipelineConfig(name="regions", model="regions", width=64, height=64, then=(TYPE,))


def live_models(source: SecondSource, now_s: Callable[[], float] = lambda: 0.0) -> LiveModels:
    return LiveModels(source, NodeMetrics(CollectorRegistry()), now_s)


async def attributes(live: LiveModels, *, lighter: bool = False) -> tuple[Attribute, ...]:
    batch, jobs = merged(with_frames(jpeg(BUS)))
    async with live.use("regions", lighter=lighter) as models:
        await asyncio.to_thread(models.classify, batch)
    (car,) = found(jobs)
    return car.attributes


class TestLiveSecondModels:
    async def test_a_pipeline_is_served_without_a_second_stage_model_that_cannot_be_loaded(self) -> None:
        source, now_s = SecondSource(), 0.0
        source.broken_second = True
        live = live_models(source, lambda: now_s)
        with pytest.raises(ConfigError, match=r"then\.type.*is broken"):
            await configured(live, [PIPELINE])
        assert live.names == {"regions"}
        assert await attributes(live) == (Attribute(name="type", missing=NO_MODEL),)
        source.broken_second, now_s = False, 61.0
        await live.update()
        assert [one.label for one in await attributes(live)] == ["bus"]
        await live.close()

    async def test_a_new_version_of_a_second_stage_model_replaces_the_old_version_and_keeps_the_first_model_open(
        self,
    ) -> None:
        source = SecondSource()
        live = live_models(source)
        await configured(live, [PIPELINE])
        source.second = "regions@2"
        await live.update()
        assert [one.model for one in await attributes(live)] == ["regions@2"]
        assert (len(source.engines), len(source.made)) == (1, 2)
        await live.close()

    async def test_a_second_stage_model_stays_in_service_if_its_new_version_is_broken(self) -> None:
        source = SecondSource()
        live = live_models(source)
        await configured(live, [PIPELINE])
        source.second, source.broken_second = "regions@2", True
        with pytest.raises(ConfigError):
            await live.update()
        assert [one.model for one in await attributes(live)] == ["regions@1"]
        await live.close()

    async def test_the_lighter_model_of_a_pipeline_has_the_same_second_stage_models(self) -> None:
        source = SecondSource()
        live = live_models(source)
        await configured(live, [PIPELINE.model_copy(update={"overload": "lighter", "lighter": "regions@5"})])
        assert live.has_lighter("regions")
        assert [one.label for one in await attributes(live, lighter=True)] == ["bus"]
        assert (len(source.engines), len(source.made)) == (2, 1)
        await live.close()

    async def test_a_second_stage_model_named_lighter_does_not_replace_the_lighter_model(self) -> None:
        live = live_models(SecondSource())
        named = TYPE.model_copy(update={"name": "lighter"})
        await configured(live, [PIPELINE.model_copy(update={"then": (named,)})])
        assert not live.has_lighter("regions")
        assert [one.name for one in await attributes(live)] == ["lighter"]
        await live.close()

    async def test_a_second_stage_model_that_the_site_file_removes_adds_no_attribute_any_more(self) -> None:
        live = live_models(SecondSource())
        await configured(live, [PIPELINE])
        await configured(live, [PIPELINE.model_copy(update={"then": ()})])
        assert await attributes(live) == ()
        await live.close()


async def test_a_node_writes_detections_and_attributes_in_one_record() -> None:
    log, intake, live = MemoryLog(2), FakeIntake(), live_models(SecondSource())
    await configured(live, [PIPELINE])
    node = Node(log, intake, live, concurrency=2, metrics=NodeMetrics(CollectorRegistry()))  # type: ignore[arg-type]
    async with running(node, intake, KafkaPartition("sightline.batches", 0)):
        intake.fetched.put_nowait([with_frames(jpeg(BUS), b""), with_frames(jpeg(CAR), offset=1, first_seq=2)])
        await until_written(log, RESULTS, 3)
    written = [decode(Result, one.value) async for one in log.read(RESULTS, 0, 0, 3)]
    given = [one.attributes[0] for result in written for one in result.detections]
    assert [one.label or one.missing for one in given] == ["bus", NO_FRAME, "car"]
    assert [result.model for result in written] == ["regions@1"] * 3
    await live.close()
