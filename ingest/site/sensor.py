"""Configuration of a sensor: its source, the meaning of its readings, and their batching."""

from __future__ import annotations

import re
from typing import ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from ingest.site.agent import SpoolConfig
from ingest.site.entry import ConfigEntry, ConfigSection, Seconds, expectation
from ingest.site.sensoroptions import (
    CommandOptions,
    HostOptions,
    ModbusOptions,
    MqttOptions,
    SerialOptions,
    SimulatedOptions,
)

HOST_QUANTITIES = ("cpu", "memory", "load", "temperature", "disk")

_OPTIONS: dict[str, type[ConfigSection]] = {
    "simulated": SimulatedOptions,
    "host": HostOptions,
    "mqtt": MqttOptions,
    "command": CommandOptions,
    "serial": SerialOptions,
    "modbus": ModbusOptions,
}
_DEVICE = re.compile(r"/.+")
_ADDRESS: dict[str, tuple[re.Pattern[str], str]] = {
    "simulated": (re.compile(r".+"), "simulated:temperature"),
    "host": (re.compile("|".join(HOST_QUANTITIES)), f"host: and one of {', '.join(HOST_QUANTITIES)}"),
    # + stands for one whole level, # for all remaining levels (MQTT 3.1.1, 4.7.1)
    "mqtt": (re.compile(r"(?=.)(?:(?:\+|[^+#/]*)/)*(?:\+|#|[^+#/]*)"), "mqtt:TOPIC, where + and # are whole levels"),
    "command": (re.compile(r".+"), "command:NAME, and argv in its options"),
    "serial": (_DEVICE, "serial:/dev/…"),
    "modbus": (
        re.compile(r"/.+|[^/:\s]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?"),
        "modbus:HOST[:PORT] or modbus:/dev/…",
    ),
}


class SensorConfig(ConfigEntry):
    """Configuration of a sensor. ``source`` is a kind and an address, such as ``mqtt:TOPIC``."""

    KIND: ClassVar[str] = "sensor"

    source: str
    site: str = ""
    quantity: str
    unit: str
    rate_hz: float = Field(default=10.0, gt=0.0, le=1000.0)
    """Readings per second of a source that is polled. Other sources send readings at their own rate."""
    low: float = -1e9
    high: float = 1e9
    """Limits of the sensor's physical range. Readings outside are flagged, and rules ignore them."""
    column_rows: int = Field(default=100, ge=1, le=10_000)
    max_delay_s: Seconds = 2.0
    """Longest time that a reading waits for others to share its record."""
    silent_after_s: Seconds = 0.0
    """Time without a reading after which the sensor is reported as stalled; 0 for never."""
    options: dict[str, str | int | float | bool | tuple[str, ...]] = {}
    spool: SpoolConfig = SpoolConfig()

    @property
    def kind(self) -> str:
        """Kind of the source: ``simulated``, ``host``, ``mqtt``, ``command``, ``serial`` or ``modbus``."""
        return self.source.partition(":")[0]

    @property
    def address(self) -> str:
        """The part of ``source`` after the kind: a topic, a device, a name."""
        return self.source.partition(":")[2]

    @property
    def parsed(self) -> ConfigSection:
        """The options as the model of the source's kind, with defaults."""
        return _OPTIONS[self.kind].model_validate(self.options)

    @model_validator(mode="after")
    def _source_makes_sense(self) -> Self:
        if self.kind not in _OPTIONS or ":" not in self.source:
            known = ", ".join(f"{kind}:" for kind in _OPTIONS)
            raise ValueError(f"expected one of {known} and an address, not source = {self.source!r}")
        pattern, expected = _ADDRESS[self.kind]
        if not pattern.fullmatch(self.address):
            raise ValueError(f"expected {expected}, not source = {self.source!r}")
        try:
            _ = self.parsed
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(["options", *map(str, first["loc"])])
            raise ValueError(f"expected {key}: {expectation(first)}, for source = {self.source!r}") from None
        if self.low > self.high:
            raise ValueError(f"expected low <= high, not {self.low:g} and {self.high:g}")
        return self
