"""Configuration of a site: cameras, sensors, pipelines, rules and receivers, as one validated TOML file.

`sightline config apply` writes each entry of the site file to the compacted ``config`` topic, with the key
``kind/name``. All services read the entries of the site from the ``config`` topic. The site file holds no secrets,
only the names of files with secrets.
"""

from ingest.contract.units import conversion
from ingest.site.agent import DiskConfig, LinkConfig, SpoolConfig
from ingest.site.camera import LEGACY_TLS, CameraConfig, StreamConfig, WatchConfig, mask_secrets
from ingest.site.entry import ClipConfig, ConfigEntry, PinConfig, RuleEntry, to_pixels
from ingest.site.file import UNNAMED, Site, load, parse_entry
from ingest.site.forecast import ForecastConfig
from ingest.site.gate import GateConfig
from ingest.site.hours import WeeklyHours
from ingest.site.measure import MeasureConfig
from ingest.site.picture import DetectorConfig, EncodeConfig, RedactConfig
from ingest.site.pipeline import AppearanceConfig, PipelineConfig, SecondModelConfig
from ingest.site.receiver import ReceiverConfig
from ingest.site.sensor import ALLOWED_LATENESS_S, HampelConfig, SensorConfig

__all__ = [
    "ALLOWED_LATENESS_S",
    "LEGACY_TLS",
    "UNNAMED",
    "AppearanceConfig",
    "CameraConfig",
    "ClipConfig",
    "ConfigEntry",
    "DetectorConfig",
    "DiskConfig",
    "EncodeConfig",
    "ForecastConfig",
    "GateConfig",
    "HampelConfig",
    "LinkConfig",
    "MeasureConfig",
    "PinConfig",
    "PipelineConfig",
    "ReceiverConfig",
    "RedactConfig",
    "RuleEntry",
    "SecondModelConfig",
    "SensorConfig",
    "Site",
    "SpoolConfig",
    "StreamConfig",
    "WatchConfig",
    "WeeklyHours",
    "conversion",
    "load",
    "mask_secrets",
    "parse_entry",
    "to_pixels",
]
