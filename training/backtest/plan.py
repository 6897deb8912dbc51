"""The plan of a backtest: the candidate model, the tested pipelines, rules and cameras, and the period.

Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from engines.repository.manifest import Manifest
from ingest.exceptions import ConfigError
from ingest.site import CameraConfig, ConfigEntry, MeasureConfig, PipelineConfig
from ingest.site.topic.view import Config
from stream.analyse.analysers import RuleSet
from stream.analyse.rule import CameraRule

MIN_WARM_S = 10.0
"""Minimum time in s before the period whose frames build up the state of filters and tracks. A noise filter settles
within a few frames."""


@dataclass(frozen=True)
class BacktestPlan:
    """The parts of a site that a backtest runs, and its period by the broker's clock, in Unix ms.

    ``pipelines`` name the candidate in place of the served model. ``untested`` are the names of the camera rules that
    the backtest does not run, because their pipeline does not use the candidate.
    """

    candidate: str
    sha256: str
    pipelines: tuple[PipelineConfig, ...]
    rules: tuple[CameraRule, ...]
    cameras: tuple[CameraConfig, ...]
    measures: tuple[MeasureConfig, ...]
    untested: frozenset[str]
    since_ms: int
    until_ms: int

    @classmethod
    def of(
        cls,
        config: Config,
        manifest: Manifest,
        period_ms: tuple[int, int],
        *,
        pipelines: Collection[str] = (),
        cameras: Collection[str] = (),
    ) -> BacktestPlan:
        """Return the plan for a candidate on a site.

        Without ``pipelines``, the candidate replaces each model of the same name, also second-stage models. Without
        ``cameras``, the backtest uses all cameras of the tested pipelines. Raise ConfigError if a name is unknown or
        if no pipeline uses the candidate.
        """
        tested = tuple(
            _with_candidate(one, manifest, by_name=not pipelines)
            for one in config.of(PipelineConfig)
            if (one.name in pipelines if pipelines else _uses(one, manifest.name))
        )
        _require_known("--pipeline", pipelines, [one.name for one in config.of(PipelineConfig) if one.has_model])
        if not tested:
            known = ", ".join(f"{one.name} ({one.model})" for one in config.of(PipelineConfig)) or "none"
            expected = f"the name of a model that a pipeline uses, or --pipeline. Pipelines: {known}"
            raise ConfigError("backtest", "--model", manifest.id, expected)
        _require_known("--camera", cameras, [one.name for one in config.of(CameraConfig)])
        used = tuple(
            one
            for one in config.of(CameraConfig)
            if (not cameras or one.name in cameras) and any(pipeline.wants(one.name) for pipeline in tested)
        )
        names, of = {one.name for one in used}, {one.name for one in tested}
        rules = config.of(CameraRule)  # type: ignore[type-abstract]
        return cls(
            manifest.id,
            manifest.sha256,
            tested,
            tuple(one for one in rules if one.camera in names and one.pipeline in of),
            used,
            tuple(one for one in config.of(MeasureConfig) if one.camera in names and one.pipeline in of),
            frozenset(one.name for one in rules if one.pipeline not in of),
            *period_ms,
        )

    @property
    def rule_set(self) -> RuleSet:
        """The rules, cameras and measures in the form that the analysers take."""
        return RuleSet(self.rules, self.cameras, self.measures, self.pipelines)

    @property
    def camera_names(self) -> frozenset[str]:
        """Names of the tested cameras."""
        return frozenset(one.name for one in self.cameras)

    @property
    def site(self) -> Config:
        """The pipelines and cameras as a configuration of the prepare stage."""
        return Config({one.key: one for one in (*self.pipelines, *self.cameras)})

    @property
    def warm_ms(self) -> int:
        """Time from which frames are read, in Unix ms. The frames before ``since_ms`` build up state only."""
        return self.since_ms - round(1000 * max(MIN_WARM_S, self.rule_set.longest_s))

    @property
    def digest(self) -> str:
        """SHA-256 of the plan in hexadecimal. Two backtests with equal digests have equal outcomes."""
        entries: tuple[ConfigEntry, ...] = (*self.pipelines, *self.rules, *self.cameras, *self.measures)
        parts = [self.candidate, self.sha256, self.since_ms, self.until_ms, *(_entry(one) for one in entries)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def rules_digest(self) -> str:
        """SHA-256 of the tested rules in hexadecimal."""
        return hashlib.sha256(json.dumps([_entry(one) for one in self.rules]).encode()).hexdigest()


def _entry(one: ConfigEntry) -> str:
    return one.model_dump_json(exclude={"sites"})


def _named(model: str) -> str:
    return model.partition("@")[0]


def _uses(pipeline: PipelineConfig, name: str) -> bool:
    seconds = (_named(one.model) for one in pipeline.then)
    return pipeline.has_model and (_named(pipeline.model) == name or name in seconds)


def _with_candidate(pipeline: PipelineConfig, manifest: Manifest, *, by_name: bool) -> PipelineConfig:
    """Return a pipeline with the candidate in place of the models of the same name, or of its own model."""
    then = tuple(
        one.model_copy(update={"model": manifest.id}) if by_name and _named(one.model) == manifest.name else one
        for one in pipeline.then
    )
    own = not by_name or _named(pipeline.model) == manifest.name
    change: Mapping[str, object] = {"then": then, **({"model": manifest.id} if own else {})}
    return pipeline.model_copy(update=change)


def _require_known(option: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError("backtest", option, name, f"one of {', '.join(sorted(known)) or 'none'}")
