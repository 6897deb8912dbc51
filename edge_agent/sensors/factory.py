"""Factory of sensor sources: one source for each connection to a device. A connection may feed several sensors."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.source import SensorSource
from edge_agent.sensors.sources.command import CommandSource
from edge_agent.sensors.sources.host import HostSource
from edge_agent.sensors.sources.simulated import SimulatedSensorSource
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig

_OWN = {"field", "time_field", "address", "table", "type", "word_order", "scale", "offset", "unit_id"}
"""Options that belong to one sensor. Options that are not in ``_OWN`` belong to the connection, which several sensors
may share."""
_EXCLUSIVE = ("serial", "modbus")
"""Kinds of devices that allow only one connection. If two connections used one device, a connection could receive the
response to a request of the other connection."""

_EXTRAS = {
    "mqtt": ("mqtt", "MqttSource"),
    "serial": ("serialport", "SerialSource"),
    "modbus": ("modbus", "ModbusSource"),
}
"""Names of module and class, by kind of sensor, for the sources whose library is an optional extra."""


def make_sources(sensors: Sequence[SensorConfig], clock: Clock) -> list[tuple[SensorSource, list[SensorConfig]]]:
    """Return the source of each connection, with the sensors that receive the source's readings.

    Raise SourceUnusable if sensors of one device have different connection options, or if a required library is not
    installed.
    """
    groups: dict[tuple[object, ...], list[SensorConfig]] = {}
    for sensor in sensors:
        groups.setdefault(_connection(sensor), []).append(sensor)
    first: dict[str, str] = {}
    for group in groups.values():
        device, name = group[0].source, group[0].name
        if group[0].kind in _EXCLUSIVE and device in first:
            raise SourceUnusable(
                f"sensors {first[device]} and {name} share the device {device}, but have different connection "
                "options: expected equal options"
            )
        first[device] = name
    return [(_source(group, clock), group) for group in groups.values()]


def _connection(sensor: SensorConfig) -> tuple[object, ...]:
    """Return a key that is equal for all sensors that can share a connection."""
    if sensor.kind in ("simulated", "host"):
        return (sensor.name,)
    shared = sensor.parsed.model_dump(exclude=_OWN)
    address = "" if sensor.kind == "mqtt" else sensor.address  # one broker serves many topics
    return (sensor.kind, address, *sorted(shared.items(), key=lambda item: item[0]))


def _source(group: Sequence[SensorConfig], clock: Clock) -> SensorSource:
    """Return the source of one connection. Libraries of optional extras are imported only in this function."""
    first = group[0]
    if first.kind == "command" and not first.options.get("argv"):
        raise SourceUnusable(
            f"sensor {first.name}: source = {first.source!r} has no argv: expected argv in options, or the command "
            "in [commands] of agent.toml"
        )
    match first.kind:
        case "simulated":
            return SimulatedSensorSource(first, clock)
        case "host":
            return HostSource(first, clock)
        case "command":
            return CommandSource(group)
    module, name = _EXTRAS[first.kind]
    try:
        cls: Any = getattr(importlib.import_module(f"edge_agent.sensors.sources.{module}"), name)
    except ModuleNotFoundError as error:
        raise SourceUnusable(
            f"sensor {first.name}: source = {first.source!r} needs {error.name}, which is not"
            f" installed. Install sightline with the extra {first.kind}"
        ) from None
    source: SensorSource = cls(group, clock)
    return source
