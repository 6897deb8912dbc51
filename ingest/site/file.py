"""A whole site: read from its file, or entry by entry from the ``config`` topic."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Self, TypeVar

from pydantic import SerializeAsAny, ValidationError, ValidationInfo, field_validator, model_validator

from ingest.exceptions import ConfigError
from ingest.site.camera import CameraConfig
from ingest.site.capture import mask_secrets
from ingest.site.delivery import PinConfig, ReceiverConfig
from ingest.site.entry import ConfigEntry, ConfigSection, RuleEntry
from ingest.site.gate import TimeZone
from ingest.site.pipeline import PipelineConfig
from ingest.site.send import LinkConfig
from ingest.site.sensor import SensorConfig
from ingest.site.spool import DiskConfig

MAX_ENTRY_BYTES = 1024 * 1024
"""Hundreds of masks with hundreds of corners. What is larger was not written for a site, and is not read."""
UNNAMED = "site"
"""The name of a site that says none. Its cameras and sensors name no site either."""
_Own = TypeVar("_Own", CameraConfig, SensorConfig)


class Site(ConfigSection):
    """A whole site, as its file has it."""

    name: str = UNNAMED
    time_zone: TimeZone = "UTC"
    """By whose clock its cameras are armed, unless one has a time zone of its own."""
    cameras: tuple[CameraConfig, ...] = ()
    sensors: tuple[SensorConfig, ...] = ()
    pipelines: tuple[PipelineConfig, ...] = ()
    rules: tuple[SerializeAsAny[RuleEntry], ...] = ()
    receivers: tuple[ReceiverConfig, ...] = ()
    spool: DiskConfig = DiskConfig()
    link: LinkConfig = LinkConfig()

    def entries(self) -> tuple[ConfigEntry, ...]:
        """Return every entry, in the order of the file."""
        return (*self.cameras, *self.sensors, *self.pipelines, *self.rules, *self.receivers)

    @field_validator("cameras", "sensors")
    @classmethod
    def _they_are_of_this_site(cls, entries: tuple[_Own, ...], info: ValidationInfo) -> tuple[_Own, ...]:
        """Name the site in its cameras and sensors: on the ``config`` topic, an entry stands alone."""
        name = info.data.get("name", UNNAMED)
        for entry in entries:
            if entry.site not in ("", name):
                raise ValueError(f"{entry.key}: site = {entry.site!r}: expected {name!r}, the file's, or nothing")
        if name == UNNAMED:
            return entries
        return tuple(entry if entry.site else entry.model_copy(update={"site": name}) for entry in entries)

    @field_validator("cameras")
    @classmethod
    def _clocks_are_set(cls, cameras: tuple[CameraConfig, ...], info: ValidationInfo) -> tuple[CameraConfig, ...]:
        """Give each camera the site's time zone, for the same reason."""
        return tuple(_by_clock_of(camera, info.data.get("time_zone")) for camera in cameras)

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        keys = [entry.key for entry in self.entries()]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"named twice: {', '.join(twice)}")
        return self


def _by_clock_of(camera: CameraConfig, time_zone: str | None) -> CameraConfig:
    if not camera.gate.armed or camera.gate.time_zone is not None:
        return camera
    return camera.model_copy(update={"gate": camera.gate.model_copy(update={"time_zone": time_zone})})


_KINDS: dict[str, type[ConfigEntry]] = {
    cls.KIND: cls for cls in (CameraConfig, SensorConfig, PipelineConfig, PinConfig, ReceiverConfig, RuleEntry)
}


def parse_entry(key: str, data: bytes) -> ConfigEntry:
    """Read one entry of the ``config`` topic. Raise ConfigError with what was expected."""
    kind = key.partition("/")[0]
    if kind not in _KINDS:
        raise ConfigError("config topic", key, kind, f"one of {', '.join(sorted(_KINDS))}")
    if len(data) > MAX_ENTRY_BYTES:
        raise ConfigError("config topic", key, f"{len(data)} bytes", f"at most {MAX_ENTRY_BYTES} bytes")
    try:
        return _KINDS[kind].model_validate_json(data)
    except ValidationError as error:
        raise config_error(f"config topic, {key}", error) from None


def load(path: Path) -> Site:
    """Read a site file. Raise ConfigError, which names the file, the key, the value and what was expected."""
    try:
        values = tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(str(path), "file", error.strerror, "a readable TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "file", str(error), "valid TOML") from None
    try:
        return Site.model_validate(values)
    except ValidationError as error:
        raise config_error(str(path), error) from None


_KNOWN_KEY = "a key that this version has (extra keys are not permitted): is it misspelt, or of a newer sightline?"


_BEFORE = ("Value error, ", "expected ", "Input should be ")
"""What pydantic and the validators put before what was expected, which is said already."""


def _bare(message: str) -> str:
    for prefix in _BEFORE:
        message = message.removeprefix(prefix)
    return message


def config_error(where: str, error: ValidationError, at: str = "") -> ConfigError:
    """Return the first problem that pydantic found. ``at`` is the key of the part that was validated."""
    first = error.errors()[0]
    key = ".".join(map(str, ([at] if at else []) + [*first["loc"]])) or "site"
    expected = _KNOWN_KEY if first["type"] == "extra_forbidden" else _bare(first["msg"])
    said = mask_secrets(dict.fromkeys(first["loc"][-1:], first["input"]))
    return ConfigError(where, key, next(iter(said.values()), "…"), mask_secrets(expected))
