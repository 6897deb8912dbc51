"""The models of a node, by pipeline. They follow the configuration and the repository while the node runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engines.exceptions import EngineError, EngineStateError, PipelineUnknown
from engines.metrics import NodeMetrics
from engines.node.cascade import Cascade
from engines.node.serving import SecondModel, ServedModel
from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.site import PipelineConfig, SecondModelConfig

_log = logs.get("engines.node")

RETRY_S = 60.0
"""Time in s after which a refused version is tried again: its file may be there by then, or memory may be free."""
REMOVED_S = 60.0
"""Time in s for which the model of a removed pipeline is kept. Batches that were prepared before the removal still
need it."""

_LIGHTER = "/lighter"
"""Suffix of the name under which the lighter model of a pipeline is kept. No pipeline's own name has a slash."""
_UNKNOWN = PipelineConfig(name="unknown", model="unknown", width=1, height=1)
"""Settings of a pipeline that is not configured."""


class ModelSource(Protocol):
    """Maker of served models. Methods block, and may be called from any thread. They raise EngineError."""

    def version(self, wanted: PipelineConfig | SecondModelConfig) -> str:
        """Return the identity of the model version that the configuration asks for, such as ``regions@2``."""

    def make(self, pipeline: PipelineConfig) -> ServedModel:
        """Return the served model of a pipeline, not yet opened."""

    def make_second(self, config: SecondModelConfig) -> SecondModel:
        """Return a second model, not yet opened."""


class SecondWanted(NamedTuple):
    """A second model that a pipeline wants."""

    pipeline: PipelineConfig
    config: SecondModelConfig

    @property
    def name(self) -> str:
        """The name under which the second model is kept. No pipeline's own name has a slash."""
        return f"{self.pipeline.name}/then/{self.config.name}"

    @property
    def key(self) -> str:
        """The key in error messages."""
        return f"{self.pipeline.key}.then.{self.config.name}"


Wanted = PipelineConfig | SecondWanted


class ModelSettings(NamedTuple):
    """The settings of a pipeline that its served model depends on. The stage ``prepare`` applies all others."""

    version: str
    input: tuple[object, ...]
    min_score: float
    precision: str | None

    @classmethod
    def of(cls, wanted: Wanted, version: str) -> ModelSettings:
        """Return the settings of a pipeline, or of a second model, whose input its manifest alone defines."""
        if isinstance(wanted, SecondWanted):
            return cls(version, (), wanted.config.min_score, wanted.config.precision)
        shape = (wanted.width, wanted.height, wanted.colour, wanted.fit)
        return cls(version, shape, wanted.min_score, wanted.precision)


@dataclass(eq=False, slots=True)
class _Serving:
    """A model that is open, and the number of batches that use it at present."""

    settings: ModelSettings
    model: ServedModel | SecondModel
    config: PipelineConfig
    """Settings of the pipeline."""
    in_use: int = 0
    replaced: bool = False


class LiveModels:
    """The served models. A new version is loaded beside the present one, and replaces it between two batches.

    A version that cannot be loaded changes nothing: the pipeline keeps its present model, and the version is tried
    again after ``RETRY_S``. Each second model is loaded, replaced and refused by itself. A pipeline is served without
    a second model that cannot be loaded. All methods belong to one event loop. Call ``want`` and ``update``, then
    ``run``, then ``close``.
    """

    def __init__(self, source: ModelSource, metrics: NodeMetrics, monotonic: Callable[[], float]) -> None:
        self._source = source
        self._metrics = metrics
        self._monotonic = monotonic
        self._wanted: dict[str, PipelineConfig] = {}
        self._seconds: dict[str, SecondWanted] = {}
        """Second models that are wanted, by ``SecondWanted.name``."""
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
        loaded = self._serving.keys() | {name for name in self._wanted if self.is_loading(name)}
        return frozenset(name for name in loaded if "/" not in name)

    def max_rows(self, pipeline: str, *, lighter: bool = False) -> int:
        """Return the maximum number of rows worth merging into a batch; 1 for a pipeline that is not served."""
        serving = self._serving_of(pipeline, lighter)
        return serving.model.max_rows if serving else 1

    def has_lighter(self, pipeline: str) -> bool:
        """Return whether the lighter model of a pipeline is loaded."""
        return pipeline + _LIGHTER in self._serving

    def batch_s(self, pipeline: str, rows: int, *, lighter: bool = False) -> float:
        """Return the expected device time of a batch in seconds; 0 for a pipeline that is not served."""
        serving = self._serving_of(pipeline, lighter)
        return serving.model.batch_time.predict_s(rows) if serving else 0.0

    def _serving_of(self, pipeline: str, lighter: bool) -> _Serving | None:
        """Return the model of a pipeline: the lighter one if it is wanted and loaded, else the usual one."""
        return (self._serving.get(pipeline + _LIGHTER) if lighter else None) or self._serving.get(pipeline)

    def config(self, pipeline: str) -> PipelineConfig:
        """Return the settings of a pipeline."""
        serving = self._serving.get(pipeline)
        return self._wanted.get(pipeline) or (serving.config if serving else _UNKNOWN)

    @property
    def slot_count(self) -> int:
        """Maximum number of batches that one model can have in flight; 1 without a model."""
        return max((serving.model.slot_count for serving in self._serving.values()), default=1)

    def unready_reason(self) -> str:
        """Return why no batch can be classified. Empty if a model is served, or if no pipeline is configured."""
        is_served = any("/" not in name for name in self._serving)
        return "" if is_served or not self._wanted else "no model is loaded"

    def is_loading(self, pipeline: str) -> bool:
        """Return whether a pipeline has no model yet, and its model is still to be loaded."""
        return pipeline in self._wanted and pipeline not in self._serving and pipeline not in self._refused

    def want(self, pipelines: Iterable[PipelineConfig]) -> None:
        """Let ``run`` serve these pipelines, and no others after ``REMOVED_S``."""
        self._wanted = {each.name: each for pipeline in pipelines for each in _models_of(pipeline)}
        found = (SecondWanted(pipeline, config) for pipeline in self._wanted.values() for config in pipeline.then)
        self._seconds = {second.name: second for second in found}
        wanted = self._wanted.keys() | self._seconds.keys()
        for name in self._serving.keys() - wanted - self._removed_s.keys():
            self._removed_s[name] = self._monotonic()
        for name in wanted:
            self._removed_s.pop(name, None)
        for name in self._refused.keys() - wanted:
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
        """Load all models that are wanted and not served, and drop those of pipelines that were removed long ago.

        Raise ConfigError with the first pipeline that cannot be served; the others are served all the same.
        """
        self._changed.clear()
        self._metrics.refused_models.set(len(self._refused))
        now_s = self._monotonic()
        for name in [name for name, since_s in self._removed_s.items() if now_s - since_s > REMOVED_S]:
            del self._removed_s[name]
            self._drop(name)
        failed: ConfigError | None = None
        everything: list[Wanted] = [*self._wanted.values(), *self._seconds.values()]
        for wanted in everything:
            try:
                await self._serve(wanted)
            except ConfigError as error:
                failed = failed or error
            self._metrics.refused_models.set(len(self._refused))
            self.on_update()
        if failed:
            raise failed

    @contextlib.asynccontextmanager
    async def use(self, pipeline: str, *, lighter: bool = False) -> AsyncIterator[Cascade]:
        """Yield the present models of a pipeline, which stay open meanwhile. Raise PipelineUnknown.

        With ``lighter``, yield its lighter model, or the usual one if that is not loaded. Second models stay the
        same.
        """
        first = self._serving_of(pipeline, lighter)
        if first is None or not isinstance(first.model, ServedModel):
            raise PipelineUnknown(f"pipeline {pipeline!r} has no model: it was removed, or its model was refused")
        config = self.config(pipeline)
        seconds = [self._serving.get(SecondWanted(config, second).name) for second in config.then]
        used = [first, *(serving for serving in seconds if serving)]
        for serving in used:
            serving.in_use += 1
        try:
            models = [one.model if one and isinstance(one.model, SecondModel) else None for one in seconds]
            yield Cascade(pipeline, first.model, list(zip(config.then, models, strict=True)), self._metrics)
        finally:
            for serving in used:
                serving.in_use -= 1
                self._close_if_unused(serving)

    async def close(self) -> None:
        """Release all models."""
        for name in list(self._serving):
            self._drop(name)
        await asyncio.gather(*self._closing)

    async def _serve(self, wanted: Wanted) -> None:
        name, before = wanted.name, self._serving.get(wanted.name)
        pipeline, config = wanted if isinstance(wanted, SecondWanted) else (wanted, wanted)
        settings = ModelSettings.of(wanted, "")
        try:
            settings = ModelSettings.of(wanted, await asyncio.to_thread(self._source.version, config))
            if before and before.settings == settings:
                self._refused.pop(name, None)
                return
            if self._is_refused(name, settings):
                return
            model = await asyncio.to_thread(self._opened, wanted)
        except Exception as error:  # an unreadable file, a faulty decoder of another package, a full memory, …
            if self._is_refused(name, settings):
                return
            self._refused[name] = settings, self._monotonic() + RETRY_S
            reason = str(error) if isinstance(error, EngineError) else repr(error)
            serving = before.settings.version if before else "none"
            _log.error("model_refused", pipeline=name, error=reason, serving=serving, retry_s=RETRY_S)
            raise ConfigError("engine", wanted.key, config.model, f"a servable model ({reason})") from None
        self._refused.pop(name, None)
        self._drop(name)
        self._serving[name] = _Serving(settings, model, pipeline)
        if name not in self._wanted and name not in self._seconds:  # removed while the model was loading
            self._removed_s[name] = self._monotonic()
        _log.info("model_served", pipeline=name, model=settings.version, before=before and before.settings.version)

    def _is_refused(self, name: str, settings: ModelSettings) -> bool:
        refused, retry_s = self._refused.get(name, (None, 0.0))
        return refused == settings and self._monotonic() < retry_s

    def _opened(self, wanted: Wanted) -> ServedModel | SecondModel:
        model: ServedModel | SecondModel
        if isinstance(wanted, SecondWanted):
            model = self._source.make_second(wanted.config)
        else:
            model = self._source.make(wanted)
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


def _models_of(pipeline: PipelineConfig) -> list[PipelineConfig]:
    """Return the settings of a pipeline's usual model, and of its lighter one if it has one.

    Both use the second models of the pipeline.
    """
    if not pipeline.lighter:
        return [pipeline]
    change = {"name": pipeline.name + _LIGHTER, "model": pipeline.lighter, "then": ()}
    return [pipeline, pipeline.model_copy(update=change)]


async def _close(model: ServedModel | SecondModel) -> None:
    # An engine call that was cancelled at the end of the node still runs in its thread. The process ends anyway.
    with contextlib.suppress(EngineStateError):
        await asyncio.to_thread(model.close)
