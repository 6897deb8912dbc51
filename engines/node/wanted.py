"""The models that a configuration asks for, and the interface ModelSource that makes these models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple, Protocol

from engines.node.serving import AnyModel
from engines.repository.canary import Canary
from ingest.site import PipelineConfig, SecondModelConfig


class ModelSource(Protocol):
    """Interface that makes the models of a node.

    Methods block, raise EngineError, and may be called from any thread.
    """

    def version(self, wanted: PipelineConfig | SecondModelConfig) -> str:
        """Return the identity of the model version that the configuration asks for, such as ``regions@2``."""

    def canary(self, pipeline: PipelineConfig) -> Canary | None:
        """Return the canary version of a pipeline's model, which serves a share of the cameras; None if there is
        none."""

    def make(self, wanted: PipelineConfig | SecondModelConfig) -> AnyModel:
        """Return a ServedModel for a pipeline, a SecondModel for a second-stage model. The caller must open the
        model."""

    def stand_in(self, wanted: PipelineConfig | SecondModelConfig) -> AnyModel | None:
        """Return a substitute: the model on a backend that loads within seconds, not yet opened; None without such a
        backend.

        The substitute serves while the model's own backend builds a TensorRT plan.
        """


class SecondWanted(NamedTuple):
    """A second-stage model that a pipeline's configuration asks for."""

    pipeline: PipelineConfig
    config: SecondModelConfig

    @property
    def name(self) -> str:
        """Name under which LiveModels keeps the second-stage model.

        The slashes make the name differ from every pipeline's name.
        """
        return f"{self.pipeline.name}/then/{self.config.name}"

    @property
    def key(self) -> str:
        """Configuration key of the second-stage model, for error messages."""
        return f"{self.pipeline.key}.then.{self.config.name}"


Wanted = PipelineConfig | SecondWanted
"""A model that the configuration asks for: the model of a pipeline, or one of its second-stage models."""


class ModelSettings(NamedTuple):
    """The settings of a pipeline that its served model depends on.

    The stage ``prepare`` applies the settings of a pipeline that do not concern its model.
    """

    version: str
    input: tuple[object, ...]
    min_score: float
    precision: str | None

    @classmethod
    def of(cls, wanted: Wanted, version: str) -> ModelSettings:
        """Return the settings of a pipeline or second-stage model.

        ``input`` is () for a second-stage model, because the second-stage model's manifest defines the input.
        """
        if isinstance(wanted, SecondWanted):
            return cls(version, (), wanted.config.min_score, wanted.config.precision)
        shape = (wanted.width, wanted.height, wanted.colour, wanted.fit)
        return cls(version, shape, wanted.min_score, wanted.precision)


def config_of(wanted: Wanted) -> PipelineConfig | SecondModelConfig:
    """Return the part of the configuration that names the model."""
    return wanted.config if isinstance(wanted, SecondWanted) else wanted


def lighter_name(pipeline: str) -> str:
    """Return the name under which LiveModels keeps a pipeline's lighter model.

    The slash makes the name differ from every pipeline's name.
    """
    return pipeline + "/lighter"


def canary_name(pipeline: str) -> str:
    """Return the name under which LiveModels keeps the canary version of a pipeline's model.

    The slash makes the name differ from every pipeline's name.
    """
    return pipeline + "/canary"


def is_pipeline_name(name: str) -> bool:
    """Return whether the model of this name is a pipeline's usual model; else it is a lighter model, a canary version
    or a second-stage model."""
    return "/" not in name


class WantedModels:
    """The models that the configuration and the canaries ask for.

    Each pipeline has a usual model, and may have a lighter model, a canary version and second-stage models.
    """

    def __init__(self) -> None:
        self.pipelines: Mapping[str, PipelineConfig] = {}
        """Maps the name of each pipeline with a model to its settings."""
        self.canaries: Mapping[str, Canary] = {}
        """Maps the name of each pipeline to the canary version of its model."""
        self.names: Set[str] = frozenset()
        """Names of all wanted models."""

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def configured(self) -> list[Wanted]:
        """Return the models that the configuration asks for: usual and lighter models, then second-stage models.

        A lighter model has no second-stage models, because a batch uses the second-stage models of its pipeline.
        """
        models: list[Wanted] = []
        for name, pipeline in self.pipelines.items():
            models.append(pipeline)
            if pipeline.lighter:
                change = {"name": lighter_name(name), "model": pipeline.lighter, "then": ()}
                models.append(pipeline.model_copy(update=change))
        seconds = (SecondWanted(pipeline, config) for pipeline in self.pipelines.values() for config in pipeline.then)
        return [*models, *seconds]

    def canary_versions(self) -> list[Wanted]:
        """Return the canary versions of the pipelines' models, without second-stage and lighter models.

        The results of a canary are refined by the second-stage models of the pipeline.
        """
        versions: list[Wanted] = []
        for name, canary in self.canaries.items():
            if pipeline := self.pipelines.get(name):
                change = {"name": canary_name(name), "model": canary.id, "then": (), "lighter": ""}
                versions.append(pipeline.model_copy(update=change))
        return versions

    def set_pipelines(self, pipelines: Iterable[PipelineConfig]) -> None:
        """Replace the pipelines. Ignore pipelines without a model."""
        self.pipelines = {pipeline.name: pipeline for pipeline in pipelines if pipeline.has_model}
        self._update_names()

    def set_canaries(self, canaries: Mapping[str, Canary]) -> dict[str, Canary]:
        """Replace the canaries. Return the canaries that have ended, by pipeline."""
        ended = {name: canary for name, canary in self.canaries.items() if name not in canaries}
        self.canaries = canaries
        self._update_names()
        return ended

    def _update_names(self) -> None:
        self.names = frozenset(wanted.name for wanted in (*self.configured(), *self.canary_versions()))
