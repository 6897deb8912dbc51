"""The entries of a site on the ``config`` topic, as the values of a site file. Pure."""

from __future__ import annotations

from typing import Any

from ingest.site import (
    CameraConfig,
    ConfigEntry,
    ForecastConfig,
    MeasureConfig,
    PipelineConfig,
    ReceiverConfig,
    RuleEntry,
)
from ingest.site.entry import SharedEntry
from ingest.site.file import UNNAMED
from ingest.site.sensor import SensorConfig
from ingest.site.topic.view import Config

_SECTIONS: dict[str, type[ConfigEntry]] = {
    "cameras": CameraConfig,
    "sensors": SensorConfig,
    "pipelines": PipelineConfig,
    "rules": RuleEntry,
    "measures": MeasureConfig,
    "forecasts": ForecastConfig,
    "receivers": ReceiverConfig,
}


def site_values(config: Config, site: str) -> dict[str, Any]:
    """Return the values of a site file. If `sightline config apply` applies a file with these values, nothing changes
    on the topic.

    Settings with their default value are left out.
    """
    found: dict[str, Any] = {} if site == UNNAMED else {"name": site}
    for section, cls in _SECTIONS.items():
        entries = [_values(entry) for entry in config.of(cls) if site in _sites(entry)]
        found |= {section: entries} if entries else {}
    return found


def _sites(entry: ConfigEntry) -> tuple[str, ...]:
    if isinstance(entry, SharedEntry):
        return entry.sites
    return (getattr(entry, "site", "") or UNNAMED,)


def _values(entry: ConfigEntry) -> dict[str, Any]:
    values = entry.model_dump(mode="json", exclude_defaults=True, exclude_none=True, exclude={"site", "sites"})
    return {key: value for key, value in values.items() if value not in ({}, [])}
