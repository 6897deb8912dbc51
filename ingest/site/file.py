"""A whole site: read from its file, or entry by entry from the ``config`` topic."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import TypeAdapter, ValidationError, model_validator

from ingest.exceptions import ConfigError
from ingest.site.camera import CameraConfig
from ingest.site.delivery import PinConfig, ReceiverConfig
from ingest.site.entry import Entry, Part
from ingest.site.pipeline import PipelineConfig
from ingest.site.rules import LineRule, Rule, ThresholdRule, ZoneRule
from ingest.site.send import LinkConfig
from ingest.site.sensor import SensorConfig
from ingest.site.spool import DiskConfig

__all__ = ["Site", "load", "parse_entry"]


class Site(Part):
    """A whole site, as its file has it."""

    name: str = "site"
    cameras: tuple[CameraConfig, ...] = ()
    sensors: tuple[SensorConfig, ...] = ()
    pipelines: tuple[PipelineConfig, ...] = ()
    rules: tuple[Rule, ...] = ()
    receivers: tuple[ReceiverConfig, ...] = ()
    spool: DiskConfig = DiskConfig()
    link: LinkConfig = LinkConfig()

    def entries(self) -> tuple[Entry, ...]:
        """Return every entry, in the order of the file."""
        return (*self.cameras, *self.sensors, *self.pipelines, *self.rules, *self.receivers)

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        keys = [entry.key for entry in self.entries()]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        for rule in self.rules:
            for needed in _needs(rule):
                if needed not in keys:
                    raise ValueError(f"{rule.key} needs {needed}, which the site does not have")
        return self


def _needs(rule: ZoneRule | LineRule | ThresholdRule) -> tuple[str, ...]:
    if isinstance(rule, ThresholdRule):
        return (f"sensor/{rule.sensor}",)
    return (f"camera/{rule.camera}", f"pipeline/{rule.pipeline}")


_KINDS: dict[str, TypeAdapter[Any]] = {
    cls.KIND: TypeAdapter(cls) for cls in (CameraConfig, SensorConfig, PipelineConfig, PinConfig, ReceiverConfig)
} | {"rule": TypeAdapter(Rule)}


def parse_entry(key: str, data: bytes) -> Entry:
    """Read one entry of the ``config`` topic. Raise ConfigError with what was expected."""
    kind = key.partition("/")[0]
    if kind not in _KINDS:
        raise ConfigError("config topic", key, kind, f"one of {', '.join(sorted(_KINDS))}")
    try:
        entry: Entry = _KINDS[kind].validate_json(data)
    except ValidationError as error:
        raise _config_error(f"config topic, {key}", error) from None
    return entry


def load(path: Path) -> Site:
    """Read a site file. Raise ConfigError, which names the file, the key, the value and what was expected."""
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(str(path), "file", error.strerror, "a readable TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "file", str(error), "valid TOML") from None
    try:
        return Site.model_validate(values)
    except ValidationError as error:
        raise _config_error(str(path), error) from None


def _config_error(where: str, error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or "site"
    return ConfigError(where, key, first["input"] if first["loc"] else "…", first["msg"])
