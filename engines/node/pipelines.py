"""Compare the pipelines on the ``config`` topic with those that a node serves. Pure."""

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
    """Stops a node cleanly once the configuration has other pipelines. The next process serves the new pipelines.

    ``require_servable`` raises EngineError for a pipeline that cannot be served. In this case, the node keeps its
    present pipelines.
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
        """Whether the node was stopped because of other pipelines."""

    def configure(self, config: Config) -> None:
        """Compare the pipelines of a configuration with the served ones.

        Raise ConfigError for a pipeline that cannot be served.
        """
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
    """Return the settings of pipelines by name, without the names of the sites that share a pipeline."""
    return {pipeline.name: pipeline.model_copy(update={"sites": ()}) for pipeline in pipelines}
