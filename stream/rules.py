"""Rules as plug-ins: the base class of rules, their discovery, and the validation of their settings.

A built-in rule for a camera's tracks is a module of ``stream.analyse.rules`` or of one of its folders. A built-in
rule for a sensor's windows is a module of ``stream.sense.rules``. Another package adds a rule through the entry point
group ``sightline.rules``. ``docs/reference/rules.md`` shows how to write a rule.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pydantic import ValidationError

from ingest.contract.records.event import DEFAULT_GAP_S, DetailValue, GapSeconds, Severity
from ingest.exceptions import ConfigError
from ingest.runtime import logs
from ingest.site import ConfigEntry, MeasureConfig, RuleEntry, Site
from ingest.site.entry import Seconds
from ingest.site.file import config_error
from ingest.site.hours import Schedule, TimeZone, WeeklyHours

_log = logs.get("stream.rules")

GROUP = "sightline.rules"
"""Entry point group of rules that other packages ship."""
PACKAGES = ("stream.analyse.rules", "stream.sense.rules")
"""Packages whose modules are the built-in rules."""


class Rule(RuleEntry, extra="forbid"):
    """Base of all rules, with the settings that every rule has.

    A subclass declares the name of its rule type as the default of the field ``type``.
    """

    EVENT_TYPE: ClassVar[str]
    """Type of the rule's events, such as ``sightline.line.crossed``."""
    REFERS_TO: ClassVar[tuple[str, ...]]
    """Names of the settings that refer to another entry of the site. A setting that refers to an entry is named after
    the entry's kind, such as ``camera``."""
    CAMERA_NEEDS: ClassVar[tuple[str, ...]] = ()
    """Names of optional settings that the rule's camera must have, such as ``ground``."""

    severity: Severity = "warning"
    cooldown_s: Seconds = 0.0
    """Time in seconds after an event of a track, or of a sensor, during which the rule emits no other event of this
    track or sensor."""
    incident_gap_s: GapSeconds = DEFAULT_GAP_S
    """Longest time in seconds between two events of one incident. An incident ends when no event has followed for
    this time."""
    hours: tuple[WeeklyHours, ...] = ()
    """Hours in which the rule emits events; empty for always."""
    time_zone: TimeZone | None = None
    """Time zone of the hours. A site file sets its own time zone in rules that have hours and no time zone."""

    def in_force(self, at_ns: int) -> bool:
        """Return whether the rule emits events at ``at_ns``, in Unix ns."""
        return not self.hours or Schedule(self.hours, self.time_zone or "UTC").contains(at_ns)

    def site_misfit(self, site: Site) -> tuple[str, object, str] | None:
        """Return a setting that does not fit the other entries of the site, its value and the expected value; None if
        all settings fit."""
        return None

    def same_as(self, other: Rule) -> bool:
        """Return whether this rule and another rule have equal settings.

        The names of the sites that share the rule are not compared.
        """
        return self.model_copy(update={"sites": other.sites}) == other


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """A situation that a rule has recognised: the text of the resulting event, and details that programs can read."""

    summary: str
    details: Mapping[str, DetailValue] = field(default_factory=dict)


@functools.cache
def plug_ins() -> dict[str, type[Rule]]:
    """Return all rule classes by the type name that site files use.

    Log and leave out an entry point that cannot be loaded, or whose rule type another class already has.
    """
    found = {
        rule_type(cls): cls
        for package in PACKAGES
        for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        for cls in _rules_of(importlib.import_module(module.name))
    }
    for point in entry_points(group=GROUP):
        try:
            cls = point.load()
            if not issubclass(cls, Rule) or inspect.isabstract(cls):
                raise TypeError(
                    f"{point.value} lacks methods of CameraRule, WindowRule or ReadingRule: expected a complete "
                    "subclass"
                )
            if found.setdefault(rule_type(cls), cls) is not cls:
                raise TypeError(
                    f"{point.value} has the same rule type as {found[rule_type(cls)].__name__}: rename its rule type"
                )
        except Exception as error:
            _log.error("rule_plug_in_not_loaded", entry_point=point.name, error=repr(error))
    return found


def rule_type(cls: type[Rule]) -> str:
    """Return the type by which site files name a rule. Raise TypeError for a class that declares no type."""
    name = cls.model_fields["type"].default
    if not isinstance(name, str):
        raise TypeError(f"rule class {cls.__name__} has no default of type: declare type: Literal['NAME'] = 'NAME'")
    return name


_EXPECTED = {"measure": "the name of a measure in this file, or of a sensor with measure = true"}


def parse_rule(settings: Mapping[str, Any], where: str, at: str) -> Rule:
    """Return the rule with the given settings, as an object of the rule's plug-in class.

    Raise ConfigError for wrong settings. The error names the file or topic ``where`` and the key of the wrong
    setting, which begins with ``at``.
    """
    cls = plug_ins().get(settings["type"])
    if cls is None:
        raise ConfigError(where, f"{at}.type", settings["type"], f"one of {', '.join(sorted(plug_ins()))}")
    try:
        return cls.model_validate(settings)
    except ValidationError as error:
        raise config_error(where, error, at) from None


def validated(entry: ConfigEntry) -> ConfigEntry:
    """Convert a rule of the ``config`` topic to the model of its plug-in.

    Return an entry that is not a rule unchanged. Raise ConfigError.
    """
    return parse_rule(entry.model_dump(), "config topic", entry.key) if entry.KIND == RuleEntry.KIND else entry


def validated_site(site: Site, file: Path) -> Site:
    """Return a site whose rules are converted to the models of their plug-ins.

    Raise ConfigError for a rule that has wrong settings, for a rule or measure that refers to an entry that the site
    does not have, for a rule whose camera lacks a setting that the rule needs, and for a measured sensor that has the
    name of a measure.
    """
    rules = [parse_rule(rule.model_dump(), str(file), f"rules.{n}") for n, rule in enumerate(site.rules)]
    keys = {entry.key for entry in site.entries()}
    for n, sensor in enumerate(site.sensors):
        key = f"{MeasureConfig.KIND}/{sensor.name}"
        if sensor.measure and key in keys:
            raise ConfigError(str(file), f"sensors.{n}.name", sensor.name, "a name that no measure in this file has")
    keys |= {f"{MeasureConfig.KIND}/{sensor.name}" for sensor in site.sensors if sensor.measure}
    cameras = {camera.name: camera for camera in site.cameras}
    referring: list[tuple[str, ConfigEntry, tuple[str, ...]]] = []
    referring += [(f"rules.{n}", rule, rule.REFERS_TO) for n, rule in enumerate(rules)]
    referring += [(f"measures.{n}", measure, ("camera", "pipeline")) for n, measure in enumerate(site.measures)]
    referring += [(f"forecasts.{n}", forecast, ("measure",)) for n, forecast in enumerate(site.forecasts)]
    for path, entry, kinds in referring:
        for kind in kinds:
            name = getattr(entry, kind)
            if f"{kind}/{name}" not in keys:
                raise ConfigError(
                    str(file), f"{path}.{kind}", name, _EXPECTED.get(kind, f"the name of a {kind} in this file")
                )
    for n, rule in enumerate(rules):
        if found := rule.site_misfit(site):
            raise ConfigError(str(file), f"rules.{n}.{found[0]}", found[1], found[2])
        for setting in rule.CAMERA_NEEDS:
            name = rule.camera  # type: ignore[attr-defined]
            if not getattr(cameras[name], setting):
                raise ConfigError(str(file), f"rules.{n}.camera", name, f"a camera with the setting {setting}")
    return site.model_copy(update={"rules": tuple(rules)})


def _rules_of(module: ModuleType) -> Iterator[type[Rule]]:
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Rule) and value.__module__ == module.__name__:
            yield value
