"""The cameras, sensors, rules and pipelines of the deployment, as the ``config`` topic has them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from console.access.roles import Identity
from ingest.contract.records import Alert, Event
from ingest.site import CameraConfig, ConfigEntry, RuleEntry, SensorConfig
from ingest.site.topic.view import Config

Points = list[list[float]]


@dataclass(frozen=True, slots=True)
class PictureShape:
    """A line, a zone or a mask on the picture of a camera. Points are in shares of the picture's width and height."""

    kind: str
    name: str
    points: Points


@dataclass(frozen=True)
class Deployment:
    """A snapshot of the configuration. ``refused`` maps the key of each refused entry to its error.

    The shapes are computed only once, because each browser with live pictures asks for all cameras with their shapes
    every second.
    """

    config: Config = field(default_factory=lambda: Config({}))

    @property
    def refused(self) -> dict[str, str]:
        """The errors of refused entries, by key."""
        return dict(self.config.refused)

    def camera(self, name: str) -> CameraConfig | None:
        """Return a camera by name, None if the configuration has no such camera."""
        found = self.config.entries.get(f"{CameraConfig.KIND}/{name}")
        return found if isinstance(found, CameraConfig) else None

    def sensor(self, name: str) -> SensorConfig | None:
        """Return a sensor by name, None if the configuration has no such sensor."""
        found = self.config.entries.get(f"{SensorConfig.KIND}/{name}")
        return found if isinstance(found, SensorConfig) else None

    def visible_cameras(self, identity: Identity) -> list[CameraConfig]:
        """Return the cameras that a user may see, sorted by site and name."""
        return [c for c in self._cameras if identity.limits.sees_camera(c.name, c.site)]

    def visible_sensors(self, identity: Identity) -> list[SensorConfig]:
        """Return the sensors that a user may see, sorted by site and name."""
        found = [s for s in self.config.of(SensorConfig) if identity.limits.sees_site(s.site)]
        return sorted(found, key=lambda sensor: (sensor.site, sensor.name))

    def sees_camera(self, identity: Identity, name: str, site: str = "") -> bool:
        """Return whether a user may see a camera.

        ``site`` is the site in a record of the camera. If ``site`` is empty, the site in the configuration counts
        instead. A camera without a known site is seen only by users who see all sites or this camera.
        """
        camera = self.camera(name)
        if not site and camera is None:
            return identity.limits.everywhere or name in identity.limits.cameras
        return identity.limits.sees_camera(name, site or (camera.site if camera else ""))

    def sees_sensor(self, identity: Identity, name: str, site: str = "") -> bool:
        """Return whether a user may see a sensor. ``site`` is the site in a record of the sensor, perhaps empty."""
        sensor = self.sensor(name)
        if not site and sensor is None:
            return identity.limits.everywhere
        return identity.limits.sees_site(site or (sensor.site if sensor else ""))

    def sees(self, identity: Identity, event: Event | Alert) -> bool:
        """Return whether a user may see an event or alert. The site in the event or alert counts, because the camera
        may have moved to another site since."""
        data = event.data
        if data.camera:
            return self.sees_camera(identity, data.camera, data.site)
        return self.sees_sensor(identity, data.sensor or event.subject, data.site)

    def rules_of(self, camera: str) -> list[RuleEntry]:
        """Return the rules of a camera, sorted by name."""
        return self._rules.get(camera, [])

    def shapes_of(self, camera: CameraConfig) -> list[PictureShape]:
        """Return the lines and zones of a camera's rules, and the camera's privacy masks."""
        return self._shapes.get(camera.name, [])

    @functools.cached_property
    def _cameras(self) -> list[CameraConfig]:
        return sorted(self.config.of(CameraConfig), key=lambda camera: (camera.site, camera.name))

    @functools.cached_property
    def _rules(self) -> dict[str, list[RuleEntry]]:
        found: dict[str, list[RuleEntry]] = {}
        for rule in self.config.of(RuleEntry):
            if isinstance(camera := _setting(rule, "camera"), str):
                found.setdefault(camera, []).append(rule)
        return found

    @functools.cached_property
    def _shapes(self) -> dict[str, list[PictureShape]]:
        return {
            camera.name: [
                *(PictureShape("mask", "mask", _points(mask)) for mask in camera.redact.masks),
                *(shape for rule in self.rules_of(camera.name) for shape in _shapes_of_rule(rule)),
            ]
            for camera in self._cameras
        }


def _shapes_of_rule(rule: RuleEntry) -> Iterable[PictureShape]:
    """Yield the shapes of a rule of any type. Settings with an invalid form are left out."""
    polygon, lines = _setting(rule, "polygon"), [[_setting(rule, "start"), _setting(rule, "end")]]
    lines += [_setting(rule, "first"), _setting(rule, "second")]
    several = _setting(rule, "lines")
    lines += list(several.values()) if isinstance(several, dict) else []
    for kind, candidates in (("zone", [polygon]), ("line", lines)):
        for candidate in candidates:
            points = _points(candidate)
            if len(points) >= 2:
                yield PictureShape(kind, rule.name, points)


def _setting(rule: ConfigEntry, name: str) -> Any:
    return (rule.model_extra or {}).get(name)


def _points(value: Any) -> Points:
    """Return the points of a polygon or line, empty if the value has another form."""
    try:
        points = [[float(x), float(y)] for x, y in value]
    except (TypeError, ValueError, OverflowError):
        return []
    return points if all(math.isfinite(part) for point in points for part in point) else []
