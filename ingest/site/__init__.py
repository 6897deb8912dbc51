"""What a site is made of: cameras, sensors, pipelines, rules and receivers, as one validated TOML file.

The file is where a site begins. `sightline config apply` puts each entry on the compacted ``config`` topic under
``kind/name``, and that is what every service reads. Secrets are never in it: only the names of files.
"""

from ingest.site.camera import CameraConfig
from ingest.site.capture import StreamConfig, WatchConfig, mask_secrets
from ingest.site.delivery import PinConfig, ReceiverConfig
from ingest.site.encode import EncodeConfig
from ingest.site.entry import ConfigEntry, RuleEntry, to_pixels
from ingest.site.file import UNNAMED, Site, load, parse_entry
from ingest.site.gate import ArmedHours, GateConfig
from ingest.site.pipeline import PipelineConfig
from ingest.site.redact import DetectorConfig, RedactConfig
from ingest.site.send import LinkConfig
from ingest.site.sensor import SensorConfig
from ingest.site.spool import DiskConfig, SpoolConfig

__all__ = [
    "UNNAMED",
    "ArmedHours",
    "CameraConfig",
    "ConfigEntry",
    "DetectorConfig",
    "DiskConfig",
    "EncodeConfig",
    "GateConfig",
    "LinkConfig",
    "PinConfig",
    "PipelineConfig",
    "ReceiverConfig",
    "RedactConfig",
    "RuleEntry",
    "SensorConfig",
    "Site",
    "SpoolConfig",
    "StreamConfig",
    "WatchConfig",
    "load",
    "mask_secrets",
    "parse_entry",
    "to_pixels",
]
