"""The models of a node, by pipeline. The models follow the configuration and the repository while the node runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engines.exceptions import EngineError, EngineStateError, PipelineUnknown
from engines.metrics import NodeMetrics
from engines.node.serving import ServedModel
from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.site import PipelineConfig

_log = logs.get("engines.node")

RETRY_S = 60.0
"""Time in s after which a refused version is tried again: its file may be there by then, or memory may be free."""
REMOVED_S = 60.0
"""Time in s for which the model of a removed pipeline is kept. Batches that were prepared before the removal still
need the model."""


class ModelSource(Protocol):
    """Maker of served models.

    Methods block, and may be called from any thread. Every method may raise EngineError.
    """

    def version(self, pipeline: PipelineConfig) -> str:
        """Return the identity of the model version that a pipeline asks for, such as ``regions@2``."""

    def make(self, pipeline: PipelineConfig) -> ServedModel:
        """Return the served model of a pipeline, not yet opened."""


class ModelSettings(NamedTuple):
    """The settings of a pipeline that its served model depends on.

    The stage ``prepare`` applies all other settings of a pipeline.
    """

    version: str
    input: tuple[object, ...]
    min_score: float
    precision: str | None

    @classmethod
    def of(cls, pipeline: PipelineConfig, version: str) -> ModelSettings:
        """Return the settings of a pipeline."""
        shape = (pipeline.width, pipeline.height, pipeline.colour, pipeline.fit)
        return cls(version, shape, pipeline.min_score, pipeline.precision)


@dataclass(eq=False, slots=True)
class _Serving:
    """A model that is open, and the number of batches that use it at present."""

    settings: ModelSettings
    model: ServedModel
    in_use: int = 0
    replaced: bool = False


class LiveModels:
    """The served models. A new version is loaded beside the present one, and replaces it between two batches.

    A version that cannot be loaded changes nothing: the pipeline keeps its present model, and the version is tried
    again after ``RETRY_S``. Call all methods on one event loop. Call ``want`` and ``update``, then ``run``, then
    ``close``.
    """

    def __init__(self, source: ModelSource, metrics: NodeMetrics, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._metrics = metrics
        self._monotonic = monotonic
        self._wanted: dict[str, PipelineConfig] = {}
        self._serving: dict[str, _Serving] = {}
        self._refused: dict[str, tuple[ModelSettings, float]] = {}
        """Settings that could not be served, and the monotonic time of the next attempt, by pipeline."""
        self._removed_s: dict[str, float] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.on_update: Callable[[], None] = lambda: None
        """Called after each pipeline whose model was loaded, refused, or found unchanged."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the pipelines whose batches can be classified, now or once their model is loaded."""
        return frozenset(self._serving) | {name for name in self._wanted if self.is_loading(name)}

    def max_rows(self, pipeline: str) -> int:
        """Return the maximum number of rows worth merging into a batch; 1 for a pipeline that is not served."""
        serving = self._serving.get(pipeline)
        return serving.model.max_rows if serving else 1

    @property
    def slot_count(self) -> int:
        """Maximum number of batches that one model can have in flight; 1 without a model."""
        return max((serving.model.slot_count for serving in self._serving.values()), default=1)

    def is_loading(self, pipeline: str) -> bool:
        """Return whether a pipeline has no model yet, and its model is still to be loaded."""
        return pipeline in self._wanted and pipeline not in self._serving and pipeline not in self._refused

    def want(self, pipelines: Iterable[PipelineConfig]) -> None:
        """Set the pipelines that ``run`` serves. Models of other pipelines are dropped after ``REMOVED_S``."""
        self._wanted = {pipeline.name: pipeline for pipeline in pipelines}
        for name in self._serving.keys() - self._wanted.keys() - self._removed_s.keys():
            self._removed_s[name] = self._monotonic()
        for name in self._wanted:
            self._removed_s.pop(name, None)
        for name in self._refused.keys() - self._wanted.keys():
            del self._refused[name]
        self._changed.set()

    async def run(self, pause_s: float) -> None:
        """Follow ``want`` at once, and look for promoted versions every ``pause_s`` seconds, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause_s)
            with contextlib.suppress(ConfigError):  # each refusal is logged
                await self.update()

    async def update(self) -> None:
        """Load all models that are wanted but not served, and drop the models of pipelines removed long ago.

        Raise ConfigError with the first pipeline that cannot be served; other pipelines are served all the same.
        """
        self._changed.clear()
        self._metrics.refused_models.set(len(self._refused))
        now_s = self._monotonic()
        for name in [name for name, since_s in self._removed_s.items() if now_s - since_s > REMOVED_S]:
            del self._removed_s[name]
            self._drop(name)
        failed: ConfigError | None = None
        for pipeline in self._wanted.values():
            try:
                await self._serve(pipeline)
            except ConfigError as error:
                failed = failed or error
            self._metrics.refused_models.set(len(self._refused))
            self.on_update()
        if failed:
            raise failed

    @contextlib.asynccontextmanager
    async def use(self, pipeline: str) -> AsyncIterator[ServedModel]:
        """Yield the present model of a pipeline, which stays open until the block ends. Raise PipelineUnknown."""
        serving = self._serving.get(pipeline)
        if serving is None:
            raise PipelineUnknown(
                f"pipeline {pipeline!r} has no model: the pipeline was removed, or its model was refused"
            )
        serving.in_use += 1
        try:
            yield serving.model
        finally:
            serving.in_use -= 1
            self._close_if_unused(serving)

    async def close(self) -> None:
        """Release all models."""
        for name in list(self._serving):
            self._drop(name)
        await asyncio.gather(*self._closing)

    async def _serve(self, pipeline: PipelineConfig) -> None:
        name, before = pipeline.name, self._serving.get(pipeline.name)
        settings = ModelSettings.of(pipeline, "")
        try:
            settings = ModelSettings.of(pipeline, await asyncio.to_thread(self._source.version, pipeline))
            if before and before.settings == settings:
                self._refused.pop(name, None)
                return
            if self._is_refused(name, settings):
                return
            model = await asyncio.to_thread(self._opened, pipeline)
        except Exception as error:  # an unreadable file, a faulty decoder of another package, a full memory, …
            if self._is_refused(name, settings):
                return
            self._refused[name] = settings, self._monotonic() + RETRY_S
            reason = str(error) if isinstance(error, EngineError) else repr(error)
            serving = before.settings.version if before else "none"
            _log.error("model_refused", pipeline=name, error=reason, serving=serving, retry_s=RETRY_S)
            raise ConfigError("engine", pipeline.key, pipeline.model, f"a servable model ({reason})") from None
        self._refused.pop(name, None)
        self._drop(name)
        self._serving[name] = _Serving(settings, model)
        if name not in self._wanted:  # removed while the model was loading
            self._removed_s[name] = self._monotonic()
        _log.info("model_served", pipeline=name, model=settings.version, before=before and before.settings.version)

    def _is_refused(self, name: str, settings: ModelSettings) -> bool:
        refused, retry_s = self._refused.get(name, (None, 0.0))
        return refused == settings and self._monotonic() < retry_s

    def _opened(self, pipeline: PipelineConfig) -> ServedModel:
        model = self._source.make(pipeline)
        try:
            model.open()
        except BaseException:
            model.close()
            raise
        return model

    def _drop(self, name: str) -> None:
        serving = self._serving.pop(name, None)
        if serving:
            serving.replaced = True
            self._close_if_unused(serving)

    def _close_if_unused(self, serving: _Serving) -> None:
        if serving.replaced and not serving.in_use:
            closing = asyncio.create_task(_close(serving.model))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


async def _close(model: ServedModel) -> None:
    # An engine call that was cancelled at the end of the node still runs in its thread. The process ends anyway.
    with contextlib.suppress(EngineStateError):
        await asyncio.to_thread(model.close)
