"""The pipelines on the ``config`` topic, compared with those that a node serves. Pure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from engines.exceptions import EngineError
from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.site import PipelineConfig
from ingest.site.topic.view import Config

_log = logs.get("engines.node")


class PipelineWatch:
    """Stops a node in good order once other pipelines are wanted. The next process serves them.

    ``require_servable`` raises EngineError for a pipeline that cannot be served. The node then keeps its pipelines.
    """

    def __init__(
        self,
        served: Iterable[PipelineConfig],
        require_servable: Callable[[PipelineConfig], object],
        stop: asyncio.Event,
    ) -> None:
        self._served = _settings(served)
        self._require_servable = require_servable
        self._stop = stop
        self.outdated = False
        """Whether the node was stopped for other pipelines."""

    def configure(self, config: Config) -> None:
        """Compare the pipelines of a configuration. Raise ConfigError for one that cannot be served."""
        wanted = config.of(PipelineConfig)
        if self.outdated or _settings(wanted) == self._served:
            return
        for pipeline in wanted:
            try:
                self._require_servable(pipeline)
            except EngineError as error:
                raise ConfigError(
                    "config topic", pipeline.key, pipeline.model, f"a servable model ({error})"
                ) from None
        _log.info("pipelines_changed", served=sorted(self._served), wanted=sorted(_settings(wanted)))
        self.outdated = True
        self._stop.set()


def _settings(pipelines: Iterable[PipelineConfig]) -> dict[str, PipelineConfig]:
    """Return pipelines by name. The sites that share one do not matter."""
    return {pipeline.name: pipeline.model_copy(update={"sites": ()}) for pipeline in pipelines}
