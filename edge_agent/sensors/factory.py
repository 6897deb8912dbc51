"""Factory of sensor sources: one source for each connection, which may feed several sensors."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from edge_agent.exceptions import SourceUnusable
from edge_agent.sensors.source import SensorSource
from edge_agent.sensors.sources.command import CommandSource
from edge_agent.sensors.sources.host import HostSource
from edge_agent.sensors.sources.simulated import SimulatedSensorSource
from ingest.runtime.clock import Clock
from ingest.site import SensorConfig

_OWN = {"field", "time_field", "address", "table", "type", "word_order", "scale", "offset", "unit_id"}
"""Options of a single sensor. All other options belong to its connection."""
_EXCLUSIVE = ("serial", "modbus")
"""Kinds of devices that allow one connection. Two connections would take each other's responses."""


def make_sources(sensors: Sequence[SensorConfig], clock: Clock) -> list[tuple[SensorSource, list[SensorConfig]]]:
    """Return the source of each connection with the sensors that it feeds.

    Raise SourceUnusable if sensors disagree on the options of their connection, or an extra is not installed.
    """
    groups: dict[tuple[object, ...], list[SensorConfig]] = {}
    for sensor in sensors:
        groups.setdefault(_connection(sensor), []).append(sensor)
    _check(groups.values())
    return [(_MAKE[group[0].kind](group, clock), group) for group in groups.values()]


def _connection(sensor: SensorConfig) -> tuple[object, ...]:
    """Return the key that sensors of the same connection share."""
    if sensor.kind in ("simulated", "host"):
        return (sensor.name,)
    shared = sensor.parsed.model_dump(exclude=_OWN)
    address = "" if sensor.kind == "mqtt" else sensor.address  # one broker serves many topics
    return (sensor.kind, address, *sorted(shared.items(), key=lambda item: item[0]))


def _check(groups: Iterable[Sequence[SensorConfig]]) -> None:
    first: dict[str, str] = {}
    for group in groups:
        device, name = group[0].source, group[0].name
        if group[0].kind in _EXCLUSIVE and device in first:
            raise SourceUnusable(
                f"sensors {first[device]} and {name} share {device}: expected the same options for its connection"
            )
        first[device] = name


def _with_extra(module: str, name: str) -> Callable[[Sequence[SensorConfig], Clock], SensorSource]:
    """Return a function that makes a source whose library is an optional extra. It imports the library when
    called."""

    def make(group: Sequence[SensorConfig], clock: Clock) -> SensorSource:
        try:
            cls: Any = getattr(importlib.import_module(f"edge_agent.sensors.sources.{module}"), name)
        except ModuleNotFoundError as error:
            raise SourceUnusable(
                f"sensor {group[0].name}: source = {group[0].source!r} needs {error.name}, which is not"
                f" installed. Install sightline with the extra {group[0].kind}"
            ) from None
        source: SensorSource = cls(group, clock)
        return source

    return make


_MAKE: dict[str, Callable[[Sequence[SensorConfig], Clock], SensorSource]] = {
    "simulated": lambda group, clock: SimulatedSensorSource(group[0], clock),
    "host": lambda group, clock: HostSource(group[0], clock),
    "command": lambda group, _: CommandSource(group),
    "mqtt": _with_extra("mqtt", "MqttSource"),
    "serial": _with_extra("serialport", "SerialSource"),
    "modbus": _with_extra("modbus", "ModbusSource"),
}
