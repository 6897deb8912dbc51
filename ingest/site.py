"""What a site is made of: cameras, sensors, pipelines, rules and receivers, as one validated TOML file.

The file is where a site begins. `sightline config apply` puts each entry on the compacted ``config`` topic under
``kind/name``, and that is what every service reads. Secrets are never in it: only the names of files.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ingest.exceptions import ConfigError
from ingest.records.base import Name, Point

__all__ = [
    "CameraConfig",
    "Entry",
    "GateConfig",
    "LineRule",
    "PinConfig",
    "PipelineConfig",
    "ReceiverConfig",
    "SensorConfig",
    "Site",
    "SpoolConfig",
    "ThresholdRule",
    "ZoneRule",
    "load",
    "parse_entry",
    "to_pixels",
]

Relative = Annotated[float, Field(ge=0.0, le=1.0)]
RelativePoint = tuple[Relative, Relative]
"""x, y as shares of the picture's width and height, so that a change of resolution does not move a line."""
Seconds = Annotated[float, Field(ge=0.0)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Entry(BaseModel):
    """One entry of a site: frozen, and with no room for misspelt keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    KIND: ClassVar[str]

    name: Name

    @property
    def key(self) -> str:
        """The entry's key on the ``config`` topic."""
        return f"{self.KIND}/{self.name}"


class GateConfig(BaseModel):
    """What is worth sending. A rate of 0 sends every frame; ``motion`` withholds frames in which nothing moves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_fps: float = Field(default=0.0, ge=0.0)
    motion: bool = True
    min_area: Share = 0.0005
    """Smallest moving region, as a share of the picture."""
    hold_s: Seconds = 1.0
    """How long the gate stays open after the last motion."""
    keep_alive_s: Seconds = 10.0
    """A still scene is sent this often all the same; 0 for never."""


class SpoolConfig(BaseModel):
    """How much an agent keeps while the link is gone, per camera; the oldest late frames expire first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_bytes: int = Field(default=512 * 1024 * 1024, ge=1024 * 1024)
    max_age_s: Seconds = 24 * 3600.0
    late_after_s: Seconds = 5.0
    """A frame that was not offered to Kafka within this time after capture goes to the late lane."""


class CameraConfig(Entry):
    """A camera. ``source`` is a file's path, ``device:N``, ``simulated:SCENE`` or, later, an address."""

    KIND: ClassVar[str] = "camera"

    source: str
    site: str = ""
    fps: float = Field(default=10.0, gt=0.0)
    """The pace at which files and simulated scenes are played; a device is asked for it."""
    loop: bool = False
    """Play a file again from the start when it ends."""
    width: int = Field(default=0, ge=0)
    height: int = Field(default=0, ge=0)
    """0 keeps the source's own size; a simulated scene is rendered in this one (640×360 by default)."""
    jpeg_quality: int = Field(default=85, ge=1, le=100)
    options: dict[str, str | int | float | bool] = {}
    """Options of the source: a scene's seed, light, rain, noise_sigma, density."""
    gate: GateConfig = GateConfig()
    spool: SpoolConfig = SpoolConfig()


class SensorConfig(Entry):
    """A sensor. ``source`` is ``simulated:KIND``."""

    KIND: ClassVar[str] = "sensor"

    source: str
    site: str = ""
    quantity: str
    unit: str
    rate_hz: float = Field(default=10.0, gt=0.0)
    low: float = -1e9
    high: float = 1e9
    """The sensor's physical range: readings outside it are dropped as faulty, and counted."""
    column_rows: int = Field(default=100, ge=1, le=10_000)
    max_delay_s: Seconds = 2.0
    options: dict[str, str | int | float | bool] = {}


class PipelineConfig(Entry):
    """How frames are prepared for one model, and which cameras it looks at."""

    KIND: ClassVar[str] = "pipeline"

    model: str
    """Name of the model in the repository; the node serves its promoted version."""
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    colour: Literal["bgr", "rgb"] = "bgr"
    fit: Literal["stretch", "letterbox"] = "stretch"
    regions: Literal["full", "motion"] = "full"
    """Classify the whole frame, or each region that moved."""
    region_margin: Share = 0.15
    """How far a region is widened on each side, as a share of its size."""
    max_regions: int = Field(default=8, ge=1, le=64)
    denoise: Literal["none", "median", "auto"] = "auto"
    max_items: int = Field(default=8, ge=1, le=64)
    max_delay_s: Seconds = 0.05
    max_bytes: int = Field(default=6 * 1024 * 1024, ge=64 * 1024)
    freshness_s: Seconds = 0.0
    """Live frames older than this when they are prepared are shed as stale; 0 for never."""
    min_score: Share = 0.3
    cameras: tuple[Name, ...] = ()
    """Empty for all."""

    def wants(self, camera: str) -> bool:
        """Tell whether this pipeline looks at a camera's frames."""
        return not self.cameras or camera in self.cameras


class _Rule(Entry):
    KIND: ClassVar[str] = "rule"

    severity: Literal["info", "warning", "critical"] = "warning"
    cooldown_s: Seconds = 0.0
    """After an event, the same track is quiet for this rule for so long."""


class _CameraRule(_Rule):
    camera: Name
    pipeline: Name
    labels: tuple[str, ...] = ()
    """Empty for all labels."""
    min_score: Share = 0.3

    def watches(self, label: str, score: float) -> bool:
        """Tell whether a detection is one this rule looks at."""
        return score >= self.min_score and (not self.labels or label in self.labels)


class ZoneRule(_CameraRule):
    """Something of the given labels is inside a polygon for at least ``dwell_s``."""

    type: Literal["zone"] = "zone"
    polygon: tuple[RelativePoint, ...] = Field(min_length=3)
    dwell_s: Seconds = 0.0


class LineRule(_CameraRule):
    """Something crosses the line from ``start`` to ``end``.

    ``forward`` is from the left of the line to its right, looking from start to end, y downwards.
    """

    type: Literal["line"] = "line"
    start: RelativePoint
    end: RelativePoint
    direction: Literal["forward", "backward", "both"] = "both"

    @model_validator(mode="after")
    def _has_length(self) -> Self:
        if self.start == self.end:
            raise ValueError("start and end are the same point: expected a line with a length")
        return self


class ThresholdRule(_Rule):
    """The mean of a sensor's window is above or below a value."""

    type: Literal["threshold"] = "threshold"
    sensor: Name
    window_s: float = Field(default=5.0, gt=0.0)
    above: float | None = None
    below: float | None = None
    min_readings: int = Field(default=3, ge=1)

    @model_validator(mode="after")
    def _has_a_bound(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("expected above, below or both")
        return self


Rule = Annotated[ZoneRule | LineRule | ThresholdRule, Field(discriminator="type")]


class PinConfig(Entry):
    """A camera's partition, written by `sightline topics grow` so that the camera stays where it is."""

    KIND: ClassVar[str] = "pin"

    partition: int = Field(ge=0)


class ReceiverConfig(Entry):
    """A webhook that gets alerts. The secret is read from a file (``whsec_…``, Standard Webhooks)."""

    KIND: ClassVar[str] = "receiver"

    url: str
    secret_file: Path
    timeout_s: float = Field(default=10.0, gt=0.0, le=60.0)
    retry_s: tuple[Seconds, ...] = (0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    """Pauses before each attempt: the schedule of Standard Webhooks, 75 hours in all."""


class Site(BaseModel):
    """A whole site, as its file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = "site"
    cameras: tuple[CameraConfig, ...] = ()
    sensors: tuple[SensorConfig, ...] = ()
    pipelines: tuple[PipelineConfig, ...] = ()
    rules: tuple[Rule, ...] = ()
    receivers: tuple[ReceiverConfig, ...] = ()

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


def to_pixels(points: tuple[RelativePoint, ...], width: int, height: int) -> tuple[Point, ...]:
    """Turn relative points into pixels of a picture of that size."""
    return tuple((x * width, y * height) for x, y in points)


def _config_error(where: str, error: ValidationError) -> ConfigError:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"])) or "site"
    return ConfigError(where, key, first["input"] if first["loc"] else "…", first["msg"])
