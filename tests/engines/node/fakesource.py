"""A source of served models for tests: fake engines under any version number, some of them broken or slow to load."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from engines.backends.fake import FakeEngine
from engines.exceptions import EngineStateError, ModelLoadFailed, ModelUnknown
from engines.node.pipelines import LiveModels
from engines.node.serving import ServedModel
from engines.repository.manifest import Model
from engines.repository.store import Repository
from ingest.site import PipelineConfig
from tests.paths import MODELS

CARS = PipelineConfig(name="cars", model="regions", width=64, height=64)
PEOPLE = CARS.model_copy(update={"name": "people"})


class FakeSource:
    """Source of the shipped model under any version.

    ``promoted`` is the promoted version; versions in ``broken`` do not load.
    """

    def __init__(self) -> None:
        self.promoted = "regions@1"
        self.broken: set[str] = set()
        self.missing: set[str] = set()
        self.engines: list[FakeEngine] = []
        self.may_load = threading.Event()
        self.may_load.set()

    def version(self, pipeline: PipelineConfig) -> str:
        if pipeline.model in self.missing:
            raise ModelUnknown(f"no model {pipeline.model}")
        return self.promoted

    def make(self, pipeline: PipelineConfig) -> ServedModel:
        version = self.promoted

        class VersionedEngine(FakeEngine):
            def _load_impl(engine, model: Model) -> None:  # noqa: N805
                assert self.may_load.wait(60)
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


async def configured(live: LiveModels, pipelines: Sequence[PipelineConfig]) -> None:
    live.want(pipelines)
    await live.update()
