"""The models that a configuration asks for, and the interface ModelSource that makes these models."""

from __future__ import annotations

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
