"""Fakes for the tests of the node, and a running node.

The fakes are its consumer, and a source of models under any version number, some of them broken or slow to load.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

from aiokafka import TopicPartition as KafkaPartition

from engines.backends.fake import FakeEngine
from engines.exceptions import EngineStateError, ModelLoadFailed, ModelUnknown
from engines.node.node import Node
from engines.node.pipelines import LiveModels
from engines.node.serving import ServedModel
from engines.repository.canary import Canary
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.kafka.log import Log, LogRecord, TopicPartition
from ingest.site import PipelineConfig
from tests.paths import MODELS

CARS = PipelineConfig(name="cars", model="regions", width=64, height=64)
PEOPLE = CARS.model_copy(update={"name": "people"})


class FakeIntake:
    """A consumer that yields the lists of records put into ``fetched``, and records its calls."""

    def __init__(self) -> None:
        self.held: set[TopicPartition] = set()
        self.begun: dict[TopicPartition, int] = {}
        self.all_begun = asyncio.Event()
        self.fetched: asyncio.Queue[list[LogRecord] | Exception] = asyncio.Queue()
        self.stopped = False
        self.positions: dict[TopicPartition, int] = {}

    def tp(self, kafka_tp: KafkaPartition) -> TopicPartition:
        return TopicPartition(kafka_tp.topic.removeprefix("sightline."), kafka_tp.partition)

    def hold(self, tps: Iterable[TopicPartition]) -> None:
        self.held = set(tps)

    def begin(self, tp: TopicPartition, position: int) -> None:
        self.begun[tp] = position
        if self.begun.keys() >= self.held:
            self.all_begun.set()

    def throttle(self, *_: object) -> None: ...

    async def start(self, _: object) -> None: ...

    async def position(self, tp: TopicPartition) -> int:
        return self.positions.get(tp, self.begun[tp])

    async def next(self) -> list[LogRecord]:
        fetched = await self.fetched.get()
        if isinstance(fetched, Exception):
            raise fetched
        return fetched

    async def stop(self) -> None:
        self.stopped = True


class FakeSource:
    """Source of the shipped model under any version: the one that a pipeline names, else ``promoted``.

    Versions in ``broken`` do not load. The engines call ``on_image`` for each image.
    """

    def __init__(self) -> None:
        self.promoted = "regions@1"
        self.on_image: Callable[[], object] = lambda: None
        self.broken: set[str] = set()
        self.missing: set[str] = set()
        self.engines: list[FakeEngine] = []
        self.canaries: dict[str, Canary] = {}
        self.may_load = threading.Event()
        self.may_load.set()

    def version(self, pipeline: PipelineConfig) -> str:
        if pipeline.model in self.missing:
            raise ModelUnknown(f"no model {pipeline.model}")
        return pipeline.model if "@" in pipeline.model else self.promoted

    def canary(self, pipeline: PipelineConfig) -> Canary | None:
        return self.canaries.get(pipeline.model)

    def make(self, pipeline: PipelineConfig) -> ServedModel:
        version = self.version(pipeline)

        class VersionedEngine(FakeEngine):
            def _load_impl(engine, model: Model) -> None:  # noqa: N805
                assert self.may_load.wait(60)
                if version in self.broken:
                    raise ModelLoadFailed(f"{version} is broken")
                super()._load_impl(model)

        self.engines.append(VersionedEngine(fails=lambda _: bool(self.on_image()) and False))
        model = Repository(MODELS).open("regions")
        number = int(version.partition("@")[2])
        manifest = model.manifest.model_copy(update={"version": number})
        return ServedModel(pipeline, Model(manifest, model.folder), self.engines[-1])

    def stand_in(self, pipeline: PipelineConfig) -> ServedModel | None:
        return None


def is_open(engine: FakeEngine) -> bool:
    try:
        return bool(engine.model)
    except EngineStateError:
        return False


async def configured(live: LiveModels, pipelines: Sequence[PipelineConfig]) -> None:
    live.want(pipelines)
    await live.update()


@asynccontextmanager
async def running(node: Node, intake: FakeIntake, *partitions: KafkaPartition) -> AsyncIterator[None]:
    """Run a node for the ``with`` block, after it has taken over these partitions."""
    await node.on_partitions_assigned(list(partitions))
    await asyncio.wait_for(intake.all_begun.wait(), 60)
    stop = asyncio.Event()
    task = asyncio.create_task(node.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)


async def until_written(log: Log, topic: str, count: int, partition: int = 0) -> None:
    """Wait until a topic partition has ``count`` records."""
    async with asyncio.timeout(60):
        while (await log.ends(topic))[partition] < count:
            await asyncio.sleep(0.001)
