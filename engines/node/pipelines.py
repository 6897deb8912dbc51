"""The models that a node serves for its pipelines.

While the node runs, changes of the configuration and of the model repository take effect.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from engines.exceptions import EngineError, EngineStateError, PipelineUnknown
from engines.metrics import NodeMetrics
from engines.node.cascade import Cascade
from engines.node.serving import AnyModel, SecondModel, ServedModel
from engines.node.wanted import (
    ModelSettings,
    ModelSource,
    SecondWanted,
    Wanted,
    WantedModels,
    canary_name,
    config_of,
    is_pipeline_name,
    lighter_name,
)
from engines.repository.canary import Canary
from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.site import PipelineConfig
from ingest.site.pipeline import USUAL_GOAL_S

T = TypeVar("T")

_log = logs.get("engines.node")

RETRY_S = 60.0
"""Time in s after which a model version that could not be loaded is tried again, because its file may then exist or
memory may then be free."""
REMOVED_S = 60.0
"""Time in s for which the model of a removed pipeline is kept. Batches that were prepared before the removal still
need the model."""

_UNKNOWN = PipelineConfig(name="unknown", model="unknown", width=1, height=1)
"""Placeholder for the settings of a pipeline that is not configured."""


@dataclass(eq=False, slots=True)
class _Serving:
    """A model that is open, and the number of batches that use it at present."""

    settings: ModelSettings
    model: AnyModel
    config: PipelineConfig
    """Settings of the pipeline."""
    stand_in: bool = False
    """Whether the model serves on a substitute backend until its TensorRT plan is built."""
    in_use: int = 0
    replaced: bool = False


@dataclass(eq=False, slots=True)
class _Build:
    """A model whose TensorRT plan is built in the background."""

    settings: ModelSettings
    model: AnyModel
    cancelled: bool = False

    def cancel(self) -> None:
        """Make the build of the TensorRT plan end after its current step."""
        self.cancelled = True
        self.model.cancel_build()


class LiveModels:
    """The served models of a node.

    A new version of a model is loaded beside the present version, and replaces the present version between two
    batches.

    If a version cannot be loaded, the pipeline keeps its present model, and the version is tried again after
    ``RETRY_S``. Each second-stage model (a classifier of detected objects) is loaded and replaced independently of
    the pipeline's own model. If a second-stage model cannot be loaded, the pipeline is served without the
    second-stage model. TensorRT plans are built in the background, one at a time. During a build, the present model
    serves, or a model on a substitute backend if there is no present model. Call all methods on one event loop:
    ``want`` and ``update``, then ``run``, then ``close``. Models are loaded in threads of ``executor``, or of the
    event loop's default executor if ``executor`` is None.
    """

    def __init__(
        self,
        source: ModelSource,
        metrics: NodeMetrics,
        monotonic: Callable[[], float],
        executor: Executor | None = None,
    ) -> None:
        self._source = source
        self._metrics = metrics
        self._monotonic = monotonic
        self._executor = executor
        self._wanted = WantedModels()
        self._serving: dict[str, _Serving] = {}
        self._refused: dict[str, tuple[ModelSettings, float]] = {}
        """Maps the name of each model that could not be loaded to its settings and the monotonic time in s of the
        next attempt."""
        self._builds: dict[str, _Build] = {}
        self._building: set[asyncio.Task[None]] = set()
        self._one_build = asyncio.Semaphore()
        self._removed_s: dict[str, float] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self.on_update: Callable[[], None] = lambda: None
        """Called each time that a model has been loaded, could not be loaded, or was found unchanged."""
        self.on_refused: Callable[[str, str], None] = lambda _name, _reason: None
        """Called with (name, reason) for each model that cannot be loaded."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the pipelines whose batches can be classified, now or once their model is loaded."""
        loading = {name for name in self._wanted.pipelines if self.is_loading(name)}
        return frozenset(filter(is_pipeline_name, self._serving.keys() | loading))

    def max_rows(self, pipeline: str, *, lighter: bool = False) -> int:
        """Return the maximum number of images worth merging into a batch; 1 for a pipeline that is not served."""
        serving = self._serving_of(pipeline, lighter)
        return serving.model.max_rows if serving else 1

    def has_lighter(self, pipeline: str) -> bool:
        """Return whether the lighter model of a pipeline is loaded."""
        return lighter_name(pipeline) in self._serving

    def batch_s(self, pipeline: str, rows: int, *, lighter: bool = False) -> float:
        """Return the expected device time in s of a batch of ``rows`` images; 0 for a pipeline that is not served."""
        serving = self._serving_of(pipeline, lighter)
        return serving.model.batch_time.predict_s(rows) if serving else 0.0

    def _serving_of(self, pipeline: str, lighter: bool) -> _Serving | None:
        """Return a pipeline's lighter model if ``lighter`` is true and that model is loaded, else the usual model."""
        return (self._serving.get(lighter_name(pipeline)) if lighter else None) or self._serving.get(pipeline)

    def config(self, pipeline: str) -> PipelineConfig:
        """Return the settings of a pipeline."""
        serving = self._serving.get(pipeline)
        return self._wanted.pipelines.get(pipeline) or (serving.config if serving else _UNKNOWN)

    @property
    def shortest_goal_s(self) -> float:
        """Shortest latency goal of all pipelines, in seconds."""
        return min((pipeline.goal_s for pipeline in self._wanted.pipelines.values()), default=USUAL_GOAL_S)

    @property
    def slot_count(self) -> int:
        """The largest ``slot_count`` of all models that are loaded or whose TensorRT plan is being built; 1 without a
        model."""
        served = [serving.model for serving in self._serving.values()]
        held = [*served, *(build.model for build in self._builds.values())]
        return max((model.slot_count for model in held), default=1)

    def unready_reason(self) -> str:
        """Return why no batch can be classified.

        The reason is empty if a model is served, or if no pipeline is configured.
        """
        is_served = any(map(is_pipeline_name, self._serving))
        return "" if is_served or not self._wanted.pipelines else "no model is loaded"

    def is_loading(self, pipeline: str) -> bool:
        """Return whether a pipeline has no model yet because its first model is still to be loaded."""
        return pipeline in self._wanted.pipelines and pipeline not in self._serving and pipeline not in self._refused

    def served_version(self, pipeline: str) -> str:
        """Return the version of a pipeline's open model, such as ``regions@2``; empty if no model is open."""
        serving = self._serving.get(pipeline)
        return serving.settings.version if serving else ""

    def want(self, pipelines: Iterable[PipelineConfig]) -> None:
        """Set the pipelines that ``run`` serves. Pipelines without a model need no serving.

        ``run`` drops the models of all other pipelines after ``REMOVED_S``.
        """
        self._wanted.set_pipelines(pipelines)
        wanted = self._wanted.names
        for name in self._serving.keys() - wanted - self._removed_s.keys():
            self._removed_s[name] = self._monotonic()
        for name in wanted:
            self._removed_s.pop(name, None)
        for name in self._builds.keys() - wanted:
            self._builds[name].cancel()
        for name in self._refused.keys() - wanted:
            del self._refused[name]
        self._changed.set()

    async def run(self, pause_s: float) -> None:
        """Call ``update`` for ever: at once after each call of ``want``, and every ``pause_s`` seconds to find
        promoted versions. After each pause, also finish the warm-up of models that were opened quickly."""
        while True:
            try:
                await asyncio.wait_for(self._changed.wait(), pause_s)
            except TimeoutError:
                await self._finish_warm_ups()
            with contextlib.suppress(ConfigError):  # each refusal is logged
                await self.update()

    async def update(self) -> None:
        """Load all configured models that are not served yet, and drop the models of pipelines removed long ago.

        Start to build TensorRT plans, without waiting for the builds. If pipelines cannot be served, serve all other
        pipelines, then raise ConfigError for the first pipeline that failed.
        """
        self._changed.clear()
        now_s = self._monotonic()
        for name in [name for name, since_s in self._removed_s.items() if now_s - since_s > REMOVED_S]:
            self._drop(name)
        failed = await self._serve_all(self._wanted.configured())
        await self._follow_canaries()
        failed = await self._serve_all(self._wanted.canary_versions()) or failed
        self._measure()
        if failed:
            raise failed

    async def _serve_all(self, everything: Sequence[Wanted]) -> ConfigError | None:
        """Load the models that are not loaded yet. Return the error of the first model that cannot be loaded."""
        failed: ConfigError | None = None
        for wanted in everything:
            try:
                await self._serve(wanted)
            except ConfigError as error:
                failed = failed or error
            self.on_update()
        return failed

    @contextlib.asynccontextmanager
    async def use(self, pipeline: str, *, lighter: bool = False) -> AsyncIterator[Cascade]:
        """Yield the present models of a pipeline, and keep these models open for the ``with`` block.

        If ``lighter`` is true, yield the pipeline's lighter model, or the usual model if the lighter model is not
        loaded. ``lighter`` does not change the second-stage models. Raise PipelineUnknown.
        """
        first = self._serving_of(pipeline, lighter)
        if first is None or not isinstance(first.model, ServedModel):
            raise PipelineUnknown(
                f"pipeline {pipeline!r} has no model: the pipeline was removed, or its model was refused"
            )
        config = self.config(pipeline)
        seconds = [self._serving.get(SecondWanted(config, second).name) for second in config.then]
        canary, beside = self._wanted.canaries.get(pipeline), self._serving.get(canary_name(pipeline))
        chosen = None
        if not lighter and canary and beside and beside.settings.version == canary.id:
            chosen = (canary, beside.model) if isinstance(beside.model, ServedModel) else None
        used = [first, *(serving for serving in (*seconds, beside if chosen else None) if serving)]
        for serving in used:
            serving.in_use += 1
        try:
            models = [one.model if one and isinstance(one.model, SecondModel) else None for one in seconds]
            yield Cascade(pipeline, first.model, list(zip(config.then, models, strict=True)), self._metrics, chosen)
        finally:
            for serving in used:
                serving.in_use -= 1
                self._close_if_unused(serving)

    async def close(self) -> None:
        """Cancel all builds, and release all models."""
        for build in self._builds.values():
            build.cancel()
        await asyncio.gather(*self._building)
        for name in list(self._serving):
            self._drop(name)
        await asyncio.gather(*self._closing)

    async def _follow_canaries(self) -> None:
        """Find the canary version of each pipeline's model, and drop canary versions that have ended."""
        found: dict[str, Canary] = {}
        for name, pipeline in self._wanted.pipelines.items():
            try:
                canary = await self._in_thread(self._source.canary, pipeline)
            except EngineError as error:
                _log.error("canary_unreadable", pipeline=name, error=str(error))
                canary = self._wanted.canaries.get(name)
            if canary:
                found[name] = canary
        for pipeline_name, ended in self._wanted.set_canaries(found).items():
            name = canary_name(pipeline_name)
            self._refused.pop(name, None)
            if build := self._builds.get(name):
                build.cancel()
            self._drop(name)
            _log.info("canary_ended", pipeline=pipeline_name, model=ended.id)

    async def _serve(self, wanted: Wanted) -> None:
        name, before = wanted.name, self._serving.get(wanted.name)
        settings = ModelSettings.of(wanted, "")
        try:
            settings = ModelSettings.of(wanted, await self._in_thread(self._source.version, config_of(wanted)))
            build = self._builds.get(name)
            if build and not build.cancelled and build.settings == settings:
                return
            if build:
                build.cancel()
            if before and before.settings == settings and not before.stand_in:
                self._refused.pop(name, None)
                return
            if self._is_refused(name, settings):
                return
            model = await self._in_thread(self._source.make, config_of(wanted))
            if await self._in_thread(model.needs_build):
                await self._begin_build(wanted, settings, model)
                return
            await self._in_thread(_open, model, before is None)
        except Exception as error:  # an unreadable file, a faulty decoder of another package, a full memory, …
            if self._is_refused(name, settings):
                return
            raise self._refusal(wanted, settings, error) from None
        self._replace(wanted, settings, model)

    async def _begin_build(self, wanted: Wanted, settings: ModelSettings, model: AnyModel) -> None:
        """Build the TensorRT plan of a model in the background.

        If no present model can serve, first open the model on a substitute backend.
        """
        name, before = wanted.name, self._serving.get(wanted.name)
        if not before or (
            before.settings != settings and (before.stand_in or before.settings.input != settings.input)
        ):
            try:
                stand_in = await self._in_thread(self._source.stand_in, config_of(wanted))
                if stand_in:
                    await self._in_thread(_open, stand_in, True)
                    self._replace(wanted, settings, stand_in, stand_in=True)
            except Exception as error:  # the build goes on without a stand-in
                _log.warning("no_model_while_plan_builds", pipeline=name, model=settings.version, error=repr(error))
        self._builds[name] = build = _Build(settings, model)
        if name not in self._wanted:  # removed meanwhile
            build.cancel()
        task = asyncio.create_task(self._build(wanted, build))
        self._building.add(task)
        task.add_done_callback(self._building.discard)

    async def _build(self, wanted: Wanted, build: _Build) -> None:
        name, version = wanted.name, build.settings.version
        try:
            async with self._one_build:
                await self._in_thread(_open, build.model, False)
        except Exception as error:
            if build.cancelled:
                _log.info("build_cancelled", pipeline=name, model=version)
            else:
                self._refusal(wanted, build.settings, error)
        else:
            if build.cancelled:
                await _close(build.model)
            else:
                self._replace(wanted, build.settings, build.model)
        finally:
            if self._builds.get(name) is build:
                del self._builds[name]
        self.on_update()

    def _replace(self, wanted: Wanted, settings: ModelSettings, model: AnyModel, stand_in: bool = False) -> None:
        """Serve an open model from the next batch on."""
        name, before = wanted.name, self._serving.get(wanted.name)
        pipeline = wanted.pipeline if isinstance(wanted, SecondWanted) else wanted
        self._refused.pop(name, None)
        self._drop(name)
        self._serving[name] = _Serving(settings, model, pipeline, stand_in)
        if name not in self._wanted:  # removed while the model was loading
            self._removed_s[name] = self._monotonic()
        self._measure()
        replaced = before.settings.version if before else "none"
        _log.info("model_served", pipeline=name, model=settings.version, replaced=replaced, stand_in=stand_in)

    def _refusal(self, wanted: Wanted, settings: ModelSettings, error: Exception) -> ConfigError:
        """Note and log that a model version cannot be loaded, and return the error for the caller to raise."""
        name = wanted.name
        if name in self._wanted:  # else removed meanwhile
            self._refused[name] = settings, self._monotonic() + RETRY_S
        self._measure()
        reason = str(error) if isinstance(error, EngineError) else repr(error)
        serving = self._serving[name].settings.version if name in self._serving else "none"
        _log.error("model_refused", pipeline=name, error=reason, serving=serving, retry_s=RETRY_S)
        self.on_refused(name, reason)
        return ConfigError("engine", wanted.key, config_of(wanted).model, f"a servable model ({reason})")

    async def _in_thread(self, call: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *args)

    def _measure(self) -> None:
        self._metrics.refused_models.set(len(self._refused))
        self._metrics.stand_ins.set(sum(serving.stand_in for serving in self._serving.values()))

    def _is_refused(self, name: str, settings: ModelSettings) -> bool:
        refused, retry_s = self._refused.get(name, (None, 0.0))
        return refused == settings and self._monotonic() < retry_s

    async def _finish_warm_ups(self) -> None:
        """Finish the warm-up of models that were opened quickly, while these models serve.

        If a larger batch size fails, the model keeps serving batches of one image.
        """
        for serving in [each for each in self._serving.values() if not each.model.is_warm]:
            if serving.replaced:  # during the warm-up of an earlier model, so that it may be closed
                continue
            serving.in_use += 1
            try:
                await self._in_thread(serving.model.finish_warm_up)
                size = serving.model.max_rows
                batch_ms = round(1000 * serving.model.batch_time.predict_s(size), 2)
                _log.info("batch_size_chosen", model=serving.settings.version, batch_size=size, batch_ms=batch_ms)
            except Exception as error:  # the outputs of large batches are wrong, or the memory is full
                _log.error("batches_of_one_image_only", model=serving.settings.version, error=repr(error))
            finally:
                serving.in_use -= 1
                self._close_if_unused(serving)

    def _drop(self, name: str) -> None:
        self._removed_s.pop(name, None)
        serving = self._serving.pop(name, None)
        if serving:
            serving.replaced = True
            self._close_if_unused(serving)

    def _close_if_unused(self, serving: _Serving) -> None:
        if serving.replaced and not serving.in_use:
            closing = asyncio.create_task(_close(serving.model))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


def _open(model: AnyModel, quickly: bool) -> None:
    try:
        model.open(quickly=quickly)
    except BaseException:
        model.close()
        raise


async def _close(model: AnyModel) -> None:
    # An engine call that was cancelled at the end of the node still runs in its thread. The process ends anyway.
    with contextlib.suppress(EngineStateError):
        await asyncio.to_thread(model.close)
