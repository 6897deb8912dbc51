"""Reads a whole site from its file, and single configuration entries from records of the ``config`` topic."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Self, TypeVar

from pydantic import SerializeAsAny, ValidationError, ValidationInfo, field_validator, model_validator

from ingest.exceptions import ConfigError
from ingest.runtime.text import read_text
from ingest.site.agent import DiskConfig, LinkConfig
from ingest.site.camera import CameraConfig, mask_secrets
from ingest.site.entry import ClipConfig, ConfigEntry, ConfigSection, PinConfig, RuleEntry, expectation
from ingest.site.forecast import ForecastConfig
from ingest.site.hours import TimeZone
from ingest.site.measure import MeasureConfig
from ingest.site.pipeline import PipelineConfig
from ingest.site.receiver import ReceiverConfig
from ingest.site.sensor import SensorConfig

MAX_ENTRY_BYTES = 1024 * 1024
"""Maximum size of a configuration entry in bytes. A camera with hundreds of masks of hundreds of corners each fits
into an entry of this size. An entry of more than ``MAX_ENTRY_BYTES`` is refused without being parsed."""
UNNAMED = "site"
"""Name of a site whose file sets no name. If a site file sets no name, the field ``site`` of its cameras and sensors
stays empty."""
_Own = TypeVar("_Own", CameraConfig, SensorConfig)


class Site(ConfigSection):
    """A whole site, with all sections of its file."""

    name: str = UNNAMED
    time_zone: TimeZone = "UTC"
    """Time zone of the armed hours of cameras and the hours of rules that set no time zone of their own."""
    clip: ClipConfig | None = None
    """The clip of the alerts of camera rules that have no ``clip`` of their own; None for no clip."""
    cameras: tuple[CameraConfig, ...] = ()
    sensors: tuple[SensorConfig, ...] = ()
    pipelines: tuple[PipelineConfig, ...] = ()
    rules: tuple[SerializeAsAny[RuleEntry], ...] = ()
    measures: tuple[MeasureConfig, ...] = ()
    forecasts: tuple[ForecastConfig, ...] = ()
    receivers: tuple[ReceiverConfig, ...] = ()
    spool: DiskConfig = DiskConfig()
    link: LinkConfig = LinkConfig()

    def entries(self) -> tuple[ConfigEntry, ...]:
        """Return all entries, in the order of the file."""
        watched = (*self.cameras, *self.sensors, *self.pipelines, *self.rules)
        return (*watched, *self.measures, *self.forecasts, *self.receivers)

    @field_validator("cameras", "sensors")
    @classmethod
    def _name_the_site(cls, entries: tuple[_Own, ...], info: ValidationInfo) -> tuple[_Own, ...]:
        """Copy the site's name into its cameras and sensors, because each entry becomes a separate record on the
        ``config`` topic."""
        name = info.data.get("name", UNNAMED)
        for entry in entries:
            if entry.site not in ("", name):
                raise ValueError(
                    f"expected {entry.key} to have site = {name!r} or no site, not site = {entry.site!r}"
                )
        if name == UNNAMED:
            return entries
        return tuple(entry if entry.site else entry.model_copy(update={"site": name}) for entry in entries)

    @field_validator("cameras")
    @classmethod
    def _set_time_zones(cls, cameras: tuple[CameraConfig, ...], info: ValidationInfo) -> tuple[CameraConfig, ...]:
        """Set the site's time zone in the cameras that have armed hours and no time zone of their own."""
        change = {"time_zone": info.data.get("time_zone")}
        return tuple(
            camera.model_copy(update={"gate": camera.gate.model_copy(update=change)})
            if camera.gate.armed and camera.gate.time_zone is None
            else camera
            for camera in cameras
        )

    @field_validator("rules")
    @classmethod
    def _set_time_zones_of_rules(cls, rules: tuple[RuleEntry, ...], info: ValidationInfo) -> tuple[RuleEntry, ...]:
        """Set the site's time zone in the rules that have hours or a time of day, and no time zone of their own."""
        change = {"time_zone": info.data.get("time_zone")}
        settings = (rule.model_extra or {} for rule in rules)
        return tuple(
            rule.model_copy(update=change)
            if (found.get("hours") or found.get("reset_at")) and found.get("time_zone") is None
            else rule
            for rule, found in zip(rules, settings, strict=True)
        )

    @field_validator("rules")
    @classmethod
    def _set_clips_of_rules(cls, rules: tuple[RuleEntry, ...], info: ValidationInfo) -> tuple[RuleEntry, ...]:
        """Set the site's clip in the camera rules that have no clip of their own."""
        clip = info.data.get("clip")
        if clip is None:
            return rules
        change = {"clip": clip}
        settings = [dict(rule) for rule in rules]
        return tuple(
            rule.model_copy(update=change) if found.get("camera") and found.get("clip") is None else rule
            for rule, found in zip(rules, settings, strict=True)
        )

    @field_validator("forecasts")
    @classmethod
    def _set_time_zones_of_forecasts(
        cls, forecasts: tuple[ForecastConfig, ...], info: ValidationInfo
    ) -> tuple[ForecastConfig, ...]:
        """Set the site's time zone in the forecasts that have no time zone of their own."""
        change = {"time_zone": info.data.get("time_zone")}
        return tuple(one if one.time_zone else one.model_copy(update=change) for one in forecasts)

    @field_validator("receivers")
    @classmethod
    def _set_time_zones_of_receivers(
        cls, receivers: tuple[ReceiverConfig, ...], info: ValidationInfo
    ) -> tuple[ReceiverConfig, ...]:
        """Set the site's time zone in the receivers that have hours and no time zone of their own."""
        change = {"time_zone": info.data.get("time_zone")}
        return tuple(
            one.model_copy(update=change) if (one.hours or one.quiet_hours) and one.time_zone is None else one
            for one in receivers
        )

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        keys = [entry.key for entry in self.entries()]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f"expected each name once per kind of entry, but {', '.join(twice)} is defined twice")
        return self


_KINDS: dict[str, type[ConfigEntry]] = {
    cls.KIND: cls
    for cls in (
        CameraConfig,
        SensorConfig,
        PipelineConfig,
        PinConfig,
        ReceiverConfig,
        RuleEntry,
        MeasureConfig,
        ForecastConfig,
    )
}


def parse_entry(key: str, data: bytes) -> ConfigEntry:
    """Parse one entry of the ``config`` topic. For an invalid entry, raise ConfigError with the key, the value and
    the expected value."""
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
    """Read a site file. For an invalid file, raise ConfigError with the file, the key, the value and the expected
    value."""
    try:
        values = tomllib.loads(read_text(path, "TOML"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), "file", str(error), "valid TOML") from None
    try:
        return Site.model_validate(values)
    except ValidationError as error:
        raise config_error(str(path), error) from None


def config_error(where: str, error: ValidationError, at: str = "") -> ConfigError:
    """Return a ConfigError for the first problem that pydantic found. ``at`` is the key of the section that was
    validated."""
    first = error.errors()[0]
    key = ".".join(map(str, ([at] if at else []) + [*first["loc"]])) or "site"
    shown = mask_secrets(dict.fromkeys(first["loc"][-1:], first["input"]))
    return ConfigError(where, key, next(iter(shown.values()), "…"), mask_secrets(expectation(first)))
